"""The counts of months in a lake: which is in force, how it is withdrawn, and which keys it may lack events of.

Invariant: a record of a count is never changed; the newest of a month says what is so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# The newest count of each month, or that it was withdrawn.
# Index: none; recon.lake_count has a row for each month and count.
_READ_NEWEST = labelled(
    "read_lake_counts",
    """
    select distinct on (gateway_name, usage_type, partition) *
    from recon.lake_count
    order by gateway_name, usage_type, partition, id
    """,
)
# Whether the log has an event of a month.
# Index: (usage_type, period_start, period_end) of the log; the first row is enough.
# Uses: in_months.
_LOG_HAS_EVENTS = labelled(
    "log_has_events_of_month",
    """
    select exists (select from billing_usage_events where {in_months})
    """,
)
# Withdraws a count: its month no longer follows it.
# Invariant: a row is added; the record of the count stays.
# Binds: acted_by text, id bigint, reason text
_WITHDRAW = labelled(
    "withdraw_lake_count",
    """
    insert into recon.lake_count (
        kind, gateway_name, usage_type, partition, acted_by, reason, engine, complete_until, source,
        key_count, nonzero_count, event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    )
    select
        'withdrawn', gateway_name, usage_type, partition, :acted_by, :reason, engine, complete_until, source,
        key_count, nonzero_count, event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    from recon.lake_count
    where id = :id
    """,
)
# Makes the drifted keys doubtful whose events the lake may not have yet.
# Invariant: what a count says stays true of it, so this need not be asked again while a counter is locked.
# Index: the primary key of recon.counter_drift, by run; recon.stand_in is small.
# Binds: error text, run_id text
_MARK_INCOMPLETE = labelled(
    "mark_incomplete_in_lake",
    """
    update recon.counter_drift as drift
    set outcome = 'doubtful', error = :error
    from recon.stand_in
    where drift.run_id = :run_id
        and drift.seal_id = stand_in.seal_id
        and drift.period_end > stand_in.complete_until
        and drift.outcome is null
    """,
)

INCOMPLETE = "the lake may still get events of its period, which ends after RECON_LAKE_COMPLETE_UNTIL: only compared"


@dataclass(frozen=True)
class LakeCount:
    """A count of a month in a lake.

    Attributes:
        id: Below 0.
        kind: `counted`, or `withdrawn` after that.
        usage: The metered usage.
        partition: The billing month, `YYYY-MM`.
        acted_at: When.
        acted_by: Who.
        engine: What counted it.
        complete_until: Of periods that end until then, the lake had every event.
        source: The lake, the mapping, the identity, and each file.
        key_count: Keys with events that count.
        event_count: Events that count.
        usage_count: What they add up to.
        invalid_count: Events that are never summed.
        dedupe_count: Events whose identity was counted before.
        outside_period_count: Events with a time outside of their period; they are summed.
    """

    id: int
    kind: str
    usage: MeteredUsage
    partition: str
    acted_at: datetime
    acted_by: str
    engine: str
    complete_until: datetime
    source: Mapping[str, Any]
    key_count: int
    event_count: int
    usage_count: Decimal
    invalid_count: int
    dedupe_count: int
    outside_period_count: int


def newest_counts(connection: Connection) -> dict[tuple[MeteredUsage, str], LakeCount]:
    """The newest count of each month that was ever counted."""
    return {(one.usage, one.partition): one for one in map(count_of, connection.execute(_READ_NEWEST).mappings())}


def log_has_events(connection: Connection, usage: MeteredUsage, month: BillingMonth) -> bool:
    """Whether the log in Postgres has an event of a month."""
    asked = {**vars(usage), "start": month.start, "end": month.end}
    return connection.execute(_LOG_HAS_EVENTS, asked).scalar_one()


def withdraw(connection: Connection, count: LakeCount, *, withdrawn_by: str, reason: str) -> None:
    """Let a month follow the log again, from the next run on; in a transaction."""
    connection.execute(_WITHDRAW, {"id": count.id, "acted_by": withdrawn_by, "reason": reason})


def mark_incomplete(connection: Connection, run_id: str) -> None:
    """Make the drifted keys of a run doubtful whose events the lake may not have yet.

    Args:
        connection: In the transaction of the comparison, after it.
        run_id: Of the run.
    """
    connection.execute(_MARK_INCOMPLETE, {"run_id": run_id, "error": INCOMPLETE})


def count_of(row: RowMapping) -> LakeCount:
    """A row of `recon.lake_count`."""
    usage = MeteredUsage(row["gateway_name"], row["usage_type"])
    rest: dict[str, Any] = {one.name: row[one.name] for one in fields(LakeCount) if one.name != "usage"}
    return LakeCount(usage=usage, **rest)
