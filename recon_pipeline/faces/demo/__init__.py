"""The month that goes wrong: six months of believable usage, and then everything that makes counters drift.

    population ─▶ traffic ─▶ counters ◀─ mishaps
    (population)        (recorder)             (lost, replayed, edited, late, orphaned)

The traffic goes through the application's own recorder, so that before the mishaps every counter equals its
event sum; after them exactly the keys that the story names do not. It never mixes into existing data.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, Protocol

import psycopg

from recon_pipeline.core.database_url import redacted
from recon_pipeline.core.errors import NOTHING_CHANGED, ConfigurationError, ReconError, StatementFailedError
from recon_pipeline.faces.demo.mishaps import MISHAPS, let_it_all_happen
from recon_pipeline.faces.demo.population import make_population
from recon_pipeline.faces.demo.scene import Mishap
from recon_pipeline.faces.demo.statements import statement
from recon_pipeline.faces.demo.traffic import insert_subscriptions, record_events

DEFAULT_EVENTS = 200_000
DEFAULT_CUSTOMERS = 3_000
# Below these some mishap finds no counter to happen to.
LEAST_EVENTS = 2_000
LEAST_CUSTOMERS = 100

__all__ = [
    "DEFAULT_CUSTOMERS",
    "DEFAULT_EVENTS",
    "Mishap",
    "MonthNotEmptyError",
    "Progress",
    "Story",
    "play_the_month",
]


class Progress(Protocol):
    """Where the month reports how far it is; called from the thread that plays it."""

    def start(self, label: str, total: int) -> None:
        """A stage begins that has `total` steps."""
        ...

    def advance(self, n: int) -> None:
        """`n` more steps are done."""
        ...

    def finish(self) -> None:
        """The stage is over, done or failed."""
        ...


@dataclass(frozen=True)
class Story:
    """What the billing tables hold afterwards, in rows, and what went wrong in them."""

    customer_count: int
    subscription_count: int
    event_count: int
    counter_count: int
    mishaps: tuple[Mishap, ...]

    @property
    def drift_count(self) -> int:
        """Keys whose counter differs from their event sum."""
        return sum(len(mishap.keys) for mishap in self.mishaps)


class MonthNotEmptyError(ReconError):
    """The billing tables hold rows already."""


def play_the_month(
    database_url: str, *, events: int, customers: int, seed: int, now: datetime, progress: Progress
) -> Story:
    """Fill empty billing tables with six months of usage up to the day of `now`, and make it go wrong.

    The same seed, sizes and UTC day of `now` give the same rows, but for ids and times of insertion.

    Args:
        database_url: Plain `postgresql://`, of a database that has the billing tables.
        events: Events to record, at least 2,000; a few late ones come on top.
        customers: At least 100; one in 25 never sends an event.
        seed: Of everything that is random.
        now: Aware; the instant that the last period of every customer is open at.
        progress: Is called at each stage.

    Raises:
        ConfigurationError: A size is too small.
        MonthNotEmptyError: A billing table holds rows.
        ReconError: The database refused something; the message says what it holds now.
    """
    if events < LEAST_EVENTS or customers < LEAST_CUSTOMERS:
        raise ConfigurationError(
            f"A month of {events:,} events and {customers:,} customers is too small for every mishap.",
            fix=f"Ask for at least {LEAST_EVENTS:,} events and {LEAST_CUSTOMERS:,} customers.",
        )
    population = make_population(seed=seed, events=events, customers=customers, now=now)
    changed = NOTHING_CHANGED
    try:
        with psycopg.connect(database_url, autocommit=True, prepare_threshold=None) as connection:
            _refuse_existing_rows(connection, database_url)
            changed = "The billing tables hold the part of the month that was played before."
            with _stage(progress, f"{events:,} events of {customers:,} customers", events):
                insert_subscriptions(connection, population)
                record_events(database_url, population, progress.advance)
            with _stage(progress, "What goes wrong", len(MISHAPS)):
                random = Random(f"{seed}/mishaps")  # noqa: S311 - not a secret, has to be repeatable
                mishaps = let_it_all_happen(connection, random, now, progress.advance)
            return _story(connection, customers, mishaps)
    except psycopg.Error as error:
        raise StatementFailedError(
            f"The month could not be played in {redacted(database_url)}: {_first_line(error)}",
            changed=changed,
            fix="Fix what Postgres says, and play the month in an empty database.",
        ) from error


@contextmanager
def _stage(progress: Progress, label: str, total: int) -> Generator[None]:
    progress.start(label, total)
    try:
        yield
    finally:
        progress.finish()


def _refuse_existing_rows(connection: psycopg.Connection[Any], database_url: str) -> None:
    try:
        filled = connection.execute(statement("first_filled_table")).fetchone()
    except psycopg.errors.UndefinedTable as error:
        raise StatementFailedError(
            f"{redacted(database_url)} has no billing tables to play the month in: {_first_line(error)}.",
            fix="Run `recon init --with-billing-tables` on an empty database.",
        ) from error
    if filled is not None:
        raise MonthNotEmptyError(
            f"The table {filled[0]} of {redacted(database_url)} holds rows, and a made-up month is never "
            "mixed into real ones.",
            fix="Play the month in an empty database.",
        )


def _story(connection: psycopg.Connection[Any], customers: int, mishaps: tuple[Mishap, ...]) -> Story:
    for table in (b"billing_usage_events", b"billing_usage_counters", b"billing_subscriptions"):
        # Fresh statistics, so that the first look at so many new rows is planned well.
        connection.execute(b"analyze " + table)
    row = connection.execute(statement("count_rows")).fetchone()
    event_count, counter_count, subscription_count = row if row else (0, 0, 0)
    return Story(customers, subscription_count, event_count, counter_count, mishaps)


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
