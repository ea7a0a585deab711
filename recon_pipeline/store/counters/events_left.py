"""Events that left the log, whose counters a run left alone: by billing month, with the keys of which most has left."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.store.postgres.statements import labelled

# The counters that are left alone because events left the log, by billing month.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text
_BY_MONTH = labelled(
    "events_left_by_month",
    """
    select
        recon.billing_month(period_start) as partition,
        count(*) as keys,
        sum(events_left)::bigint as events,
        trim_scale(sum(units_left))::text as units
    from recon.counter_drift
    where run_id = :run_id
        and outcome = 'doubtful'
        and units_left is not null
    group by 1
    order by 1
    """,
)
# The keys of which most has left the log, of each billing month.
# Index: the primary key of recon.counter_drift, by run.
# Binds: run_id text, sample_rows bigint
_SAMPLE = labelled(
    "sample_events_left",
    """
    select
        partition, gateway_customer_id, usage_type, period_start::text as period_start,
        usage_count::text as usage_count, visible_sum::text as event_sum, events_left,
        trim_scale(units_left)::text as units_left
    from (
        select
            *,
            recon.billing_month(period_start) as partition,
            row_number() over (
                partition by recon.billing_month(period_start)
                order by units_left desc, gateway_customer_id, usage_type, period_start, period_end
            ) as place
        from recon.counter_drift
        where run_id = :run_id
            and outcome = 'doubtful'
            and units_left is not null
    ) as key
    where place <= :sample_rows
    order by partition, place
    """,
)


@dataclass(frozen=True)
class MonthLeft:
    """What left the log in one billing month, of keys whose counters would change for it.

    Attributes:
        partition: `YYYY-MM`.
        keys: How many counters were left alone.
        events: How many events of theirs are no longer there.
        units: What these, and lowered ones, added up to; as Postgres prints it.
    """

    partition: str
    keys: int
    events: int
    units: str


@dataclass(frozen=True)
class KeyLeft:
    """One such key for a person to see; numbers as text, since an event sum may be past bigint."""

    gateway_customer_id: str
    usage_type: str
    period_start: str
    usage_count: str | None
    event_sum: str
    events_left: int
    units_left: str


@dataclass(frozen=True)
class EventsLeft:
    """What left the log, and was left alone.

    Attributes:
        months: Those in which something has left it.
        samples: Of each of them (`YYYY-MM`) the keys of which most has left.
    """

    months: tuple[MonthLeft, ...] = ()
    samples: Mapping[str, tuple[KeyLeft, ...]] = field(default_factory=dict[str, tuple[KeyLeft, ...]])

    def of_month(self, partition: str) -> MonthLeft | None:
        """What left the log in that month, or None if nothing has."""
        return next((month for month in self.months if month.partition == partition), None)


def read(connection: Connection, run_id: str, *, sample_rows: int) -> EventsLeft:
    """What a run's comparison left alone because events left the log."""
    months = connection.execute(_BY_MONTH, {"run_id": run_id}).mappings().all()
    asked: dict[str, Any] = {"run_id": run_id, "sample_rows": sample_rows}
    samples: dict[str, tuple[KeyLeft, ...]] = {}
    for row in connection.execute(_SAMPLE, asked).mappings() if months else ():
        key = KeyLeft(**{field.name: row[field.name] for field in fields(KeyLeft)})
        samples[row["partition"]] = (*samples.get(row["partition"], ()), key)
    return EventsLeft(tuple(MonthLeft(**month) for month in months), samples)
