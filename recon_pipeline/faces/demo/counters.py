"""The rows that mishaps pick and change, and the few writes they do.

Invariant: a counter is picked at most once, so that no mishap fixes or worsens another's. Everything
happens in one transaction of the caller's, which drops the list of untouched counters at its end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.quotas import parse_quotas
from recon_pipeline.faces.demo.population import METERED, USAGE_TYPE
from recon_pipeline.faces.demo.statements import statement
from recon_pipeline.settings import DEFAULT_QUOTAS

QUOTA = parse_quotas(DEFAULT_QUOTAS)[USAGE_TYPE]
KeyT = TypeVar("KeyT", bound="CounterKey")


class MonthTooSmallError(ReconError):
    """The month has too few events or customers for a mishap to happen to."""


@dataclass(frozen=True, order=True)
class CounterKey:
    """The key of a counter within the demo's one gateway and usage type; the period is half open, UTC."""

    gateway_customer_id: str
    period_start: datetime
    period_end: datetime


@dataclass(frozen=True)
class PickedCounter(CounterKey):
    """A counter as it stood when a mishap picked it; `usage_limit` in units of usage, as is the count."""

    usage_count: int
    usage_limit: int

    @property
    def key(self) -> CounterKey:
        """The key alone."""
        return CounterKey(self.gateway_customer_id, self.period_start, self.period_end)


@dataclass(frozen=True)
class LateEvent:
    """An event that reaches the log and not its counter."""

    key: CounterKey
    request_id: str
    quantity: int
    event_timestamp: datetime


def list_untouched_counters(connection: psycopg.Connection[Any]) -> int:
    """List every counter as untouched, until the transaction ends; returns how many there are."""
    connection.execute(statement("create_untouched_counter"))
    limits = {"paid_limit": QUOTA.paid, "free_limit": QUOTA.free}
    return connection.execute(statement("fill_untouched_counter"), {**METERED, **limits}).rowcount


def pick_counters(
    connection: psycopg.Connection[Any], random: Random, name: str, *, at_least: int = 1, **parameters: object
) -> tuple[PickedCounter, ...]:
    """Run one of the statements that take untouched counters off the list; sorted by key.

    Raises:
        MonthTooSmallError: There are fewer than `at_least`.
    """
    with connection.cursor(row_factory=class_row(PickedCounter)) as cursor:
        cursor.execute(statement(name), {**parameters, "salt": random.getrandbits(63)})
        return _sorted_in_utc(cursor, at_least, name)


def pick_keys(
    connection: psycopg.Connection[Any], random: Random, name: str, *, at_least: int, **parameters: object
) -> tuple[CounterKey, ...]:
    """Run one of the statements that find keys without a counter; sorted.

    Raises:
        MonthTooSmallError: There are fewer than `at_least`.
    """
    with connection.cursor(row_factory=class_row(CounterKey)) as cursor:
        cursor.execute(statement(name), {**METERED, **parameters, "salt": random.getrandbits(63)})
        return _sorted_in_utc(cursor, at_least, name)


def move_counters(
    connection: psycopg.Connection[Any], moves: Sequence[tuple[PickedCounter, int]]
) -> tuple[CounterKey, ...]:
    """Set each counter to the count beside it; returns the keys.

    Raises:
        RuntimeError: A counter moved in between, so that the story about it would be wrong.
    """
    rows = [{**_key_columns(counter.key), "before": counter.usage_count, "after": after} for counter, after in moves]
    with connection.cursor() as cursor:
        cursor.executemany(statement("set_counter"), rows)
        if cursor.rowcount != len(rows):
            raise RuntimeError(f"only {cursor.rowcount} of {len(rows)} counters stood where they were picked")
    return tuple(counter.key for counter, _ in moves)


def insert_counters(connection: psycopg.Connection[Any], counts: Sequence[tuple[CounterKey, int]]) -> None:
    """Insert counters that no event accounts for."""
    rows = [{**_key_columns(key), "usage_count": count} for key, count in counts]
    with connection.cursor() as cursor:
        cursor.executemany(statement("insert_orphaned_counter"), rows)


def insert_late_events(connection: psycopg.Connection[Any], events: Sequence[LateEvent]) -> None:
    """Insert events past the recorder."""
    rows = [
        {
            **_key_columns(event.key),
            "request_id": event.request_id,
            "quantity": event.quantity,
            "event_timestamp": event.event_timestamp,
        }
        for event in events
    ]
    with connection.cursor() as cursor:
        cursor.executemany(statement("insert_late_event"), rows)


def _key_columns(key: CounterKey) -> dict[str, object]:
    return {
        **METERED,
        "gateway_customer_id": key.gateway_customer_id,
        "period_start": key.period_start,
        "period_end": key.period_end,
    }


def _sorted_in_utc(rows: Iterable[KeyT], at_least: int, name: str) -> tuple[KeyT, ...]:
    picked = sorted(
        replace(row, period_start=row.period_start.astimezone(UTC), period_end=row.period_end.astimezone(UTC))
        for row in rows
    )
    if len(picked) < at_least:
        raise MonthTooSmallError(
            f"A mishap needs {at_least} keys and found {len(picked)} ({name.replace('_', ' ')}).",
            changed="The events are recorded and every counter is right; no mishap happened.",
            fix="Simulate a month with more events per customer in an empty database.",
        )
    return tuple(picked)
