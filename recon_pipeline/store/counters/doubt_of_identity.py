"""Drifted keys of which the log does not say what is one event, so that nothing is decided: they are doubtful.

Invariant: an event that shares its identity with an event of another key, or with any other event where the log
declares a wider key than the identity, may have been counted for either. No counter of a key with such an event is
written: the comparison marks it, and a chunk asks again after it has written and before it commits, so that no twin
that came since is overlooked. A log that refuses repetitions itself is asked nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.counters import outcomes, remembered_doubt
from recon_pipeline.store.counters.doubt import Doubt, InDoubtError
from recon_pipeline.store.counters.usage_snapshot import MOST_KEYS
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.ingest_xid import Need
from recon_pipeline.store.postgres.planning import join_by_hash, look_up_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import modes
from recon_pipeline.store.sums.run import SAMPLE_ROWS

_KEYS_SAMPLED = 100

# How many drifted keys of a run are doubtful for one of some doubts.
# Index: the primary key of recon.counter_drift, by run.
# Binds: doubts text[], run_id text
_COUNT_DOUBTFUL = labelled(
    "count_doubtful",
    """
    select count(*)
    from recon.counter_drift
    where run_id = :run_id and outcome = 'doubtful' and doubts && cast(:doubts as text[])
    """,
)


@dataclass(frozen=True)
class SharedEvent:
    """Two events of one identity, the first of them of a drifted key; values as Postgres prints them.

    Attributes:
        other_is_of: `another key`, or the same one.
    """

    request_id: str
    other_is_of: str
    gateway_customer_id: str
    usage_type: str
    period_start: str
    quantity: str
    event_timestamp: str | None
    other_customer: str
    other_usage_type: str | None
    other_period_start: str
    other_quantity: str
    other_event_timestamp: str | None

    @property
    def differing_columns(self) -> tuple[str, ...]:
        """The columns that could name an event in which the two differ, those of the key first."""
        pairs = {
            "usage_type": (self.usage_type, self.other_usage_type),
            "gateway_customer_id": (self.gateway_customer_id, self.other_customer),
            "period_start": (self.period_start, self.other_period_start),
            "event_timestamp": (self.event_timestamp, self.other_event_timestamp),
        }
        return tuple(column for column, (one, other) in pairs.items() if one != other)


@dataclass(frozen=True)
class SharedEvents:
    """What the log does not say of a run's drifted keys.

    Attributes:
        key_count: Keys that are doubtful because of it.
        sample: At most `SAMPLE_ROWS` pairs of events, also of keys that are not doubtful, where a repeated event has
            another quantity.
    """

    key_count: int = 0
    sample: tuple[SharedEvent, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """A few columns that distinguish every two events of the sample, as far as columns can."""
        chosen = set[str]()
        for pair in self.sample:
            if not chosen.intersection(pair.differing_columns):
                chosen.update(pair.differing_columns[:1])
        return frozenset(chosen)


def mark(connection: Connection, run_id: str, tables: BillingTables, ordinals: Sequence[int]) -> None:
    """Record which of a run's drifted keys are doubtful.

    Args:
        connection: In a transaction that has written none of their counters.
        run_id: Of the run.
        tables: How the tables are shaped.
        ordinals: Of the keys; if they are many, all keys of the run are looked at.
    """
    if tables.refuses_repetitions or not ordinals:
        return
    every_key = len(ordinals) > MOST_KEYS
    by_index = not every_key and _finds_requests(connection, tables)
    _plan(connection, by_index=by_index)
    asked = {"ordinals": [] if every_key else list(ordinals), "every_key": every_key, "by_index": by_index}
    found = _sharing(connection, run_id, tables, "keys_sharing_events", asked)
    for is_of_credits in (False, True):
        marked = [row.ordinal for row in found if row.is_of_credits == is_of_credits]
        if marked:
            doubt = _doubt(tables, is_of_credits=is_of_credits)
            outcomes.mark(connection, run_id, marked, "doubtful", doubt.reason, doubt=doubt.name)


def require_none(
    connection: Connection, run_id: str, tables: BillingTables, ordinals: Sequence[int], *, horizon: str | None = None
) -> None:
    """Let a chunk keep what it has written only if none of its keys is doubtful.

    Args:
        connection: In the transaction of the chunk, after its last write.
        run_id: Of the run.
        tables: How the tables are shaped.
        ordinals: Of the keys.
        horizon: Only twins that came since, or that an event has that came since.

    Raises:
        InDoubtError: With those that are.
    """
    if tables.refuses_repetitions:
        return
    asked: dict[str, Any] = {"ordinals": list(ordinals)}
    if horizon is not None:
        found = _sharing(connection, run_id, tables, "keys_sharing_events_from_horizon", asked | {"horizon": horizon})
    else:
        asked |= {"every_key": False, "by_index": _finds_requests(connection, tables)}
        found = _sharing(connection, run_id, tables, "keys_sharing_events", asked)
    if found:
        raise InDoubtError({row.ordinal: _doubt(tables, is_of_credits=row.is_of_credits) for row in found})


def shared_events(connection: Connection, run_id: str, tables: BillingTables) -> SharedEvents:
    """What the log, which admits repetitions, does not say of a run's drifted keys."""
    asked = {"run_id": run_id, "doubts": [remembered_doubt.SHARED_IDENTITY, remembered_doubt.SHARED_WITH_CREDIT]}
    count = connection.execute(_COUNT_DOUBTFUL, asked).scalar_one()
    _plan(connection, by_index=_finds_requests(connection, tables))
    shown = {**_parameters(tables), "most": _KEYS_SAMPLED, "sample_rows": SAMPLE_ROWS}
    rows = connection.execute(statement("sample_shared_events"), asked | shown).mappings()
    return SharedEvents(count, tuple(SharedEvent(**row) for row in rows))


def _doubt(tables: BillingTables, *, is_of_credits: bool) -> Doubt:
    if is_of_credits:
        more = "; one of the two is of negative quantity"
        return Doubt(remembered_doubt.SHARED_WITH_CREDIT, _reason(tables) + more)
    return Doubt(remembered_doubt.SHARED_IDENTITY, _reason(tables))


def _reason(tables: BillingTables) -> str:
    if tables.wider_key is not None:
        return (
            f"another event has the same {tables.event_identity} as one of its events, and the log declares by a "
            "unique key that they are two (see the check event_identity_is_known)"
        )
    return (
        f"an event of another key, of the opposite sign or of no units has the same {tables.event_identity} as one of "
        "its events, so that the log does not say what counts (see the check event_identity_is_known)"
    )


def _plan(connection: Connection, *, by_index: bool) -> None:
    """Of few keys each event is looked up, if there is an index to do it by."""
    if by_index:
        look_up_by_index(connection)
    else:
        plan_as_usual(connection)
        join_by_hash(connection)


def _finds_requests(connection: Connection, tables: BillingTables) -> bool:
    """Whether an index finds events by their request ids, which is advised where the log admits repetitions."""
    if modes.prepared_catalog(connection) == tables.prepared_catalog:
        return True
    left = ingest_xid.lacking(connection, refuses_repetitions=tables.refuses_repetitions)
    return all(lack.kind is not Need.ADVISED for lack in left)


def _sharing(connection: Connection, run_id: str, tables: BillingTables, name: str, asked: dict[str, Any]) -> list[Any]:
    return list(connection.execute(statement(name), {**_parameters(tables), "run_id": run_id, **asked}))


def _parameters(tables: BillingTables) -> dict[str, Any]:
    return {**tables.parameters, "declares_wider_key": tables.wider_key is not None}
