"""One period that is written in two ways: by events in one, by a counter or other events in the other.

Invariant: neither of the two keys is touched, since both are one key to the customer. A driver or a column that cuts
microseconds writes a period so, and an end that moved, where counters are unique without it. A repair looks once more
under the lock of the counter: `repair_locked_counters`. So does an application that moves a counter to a new period,
as at a change of plan, and leaves its events: then the two drifted, and their periods overlap.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.store.counters import outcomes, remembered_doubt
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

_REASON = "one period written in two ways"  # as `periods_written_twice` begins its own
_DOUBTS = [remembered_doubt.WRITTEN_TWICE, remembered_doubt.UNDER_TWO_PERIODS, remembered_doubt.DIGITS]

# The drifted keys of a run whose period is written in two ways, how many there are, and a few of them.
# Binds: doubts text[], run_id text, sample_rows bigint
_SAMPLE = labelled(
    "sample_periods_written_twice",
    """
    select
        gateway_customer_id, usage_type, period_start::text as period_start, period_end::text as period_end, kind,
        usage_count::text as usage_count, settled_sum::text as event_sum, error,
        count(*) over () as found
    from recon.counter_drift
    where run_id = :run_id
        and outcome = 'doubtful'
        and doubts && cast(:doubts as text[])
    order by ordinal
    limit :sample_rows
    """,
)
# Counters of the open months of an extent beside another one of the same customer and usage type whose period is the
# same but for the way in which it is written: how many pairs, and a few of them, whether their counts are right or not.
# Invariant: neighbours by their start are looked at.
# Index: the unique key of the counters, or a sort of those of the extent.
# Uses: in_extent_following_log.
# Binds: end_is_in_key boolean, sample_rows bigint
_SAMPLE_PAIRS = labelled(
    "sample_counters_written_twice",
    """
    select
        gateway_customer_id, usage_type, period_start::text as period_start, period_end::text as period_end,
        'pair' as kind, usage_count::text as usage_count, null as event_sum,
        format('also written %s to %s', other_start, other_end) as error,
        count(*) over () as found
    from (
        select
            gateway_customer_id, usage_type, period_start, period_end, usage_count,
            lead(period_start) over beside as other_start,
            lead(period_end) over beside as other_end
        from billing_usage_counters
        where {in_extent_following_log}
        window beside as (partition by gateway_customer_id order by period_start, period_end)
    ) as counter
    where other_start <= period_start + interval '1 second'
        and (not :end_is_in_key or abs(extract(epoch from other_end) - extract(epoch from period_end)) <= 1)
    order by gateway_customer_id, period_start
    limit :sample_rows
    """,
)


@dataclass(frozen=True)
class WrittenTwice:
    """A key whose period is written in another way elsewhere; values as Postgres prints them.

    Attributes:
        kind: Of its drift, or `pair` for one of two counters that need not have drifted.
    """

    gateway_customer_id: str
    usage_type: str
    period_start: str
    period_end: str
    kind: str
    usage_count: str | None
    event_sum: str | None
    error: str


def mark_written_twice(connection: Connection, run: Reconciliation, tables: BillingTables) -> None:
    """Make the drifted keys of a run doubtful whose period is written in two ways.

    Args:
        connection: In the transaction of the comparison, after it.
        run: Whose drift is looked at.
        tables: How the tables are shaped.
    """
    months = {"start": run.extent.start, "end": run.extent.end}
    connection.execute(statement("mark_periods_written_twice"), {**tables.parameters, **months, "run_id": run.run_id})


def mark_found_later(connection: Connection, run_id: str, ordinal: int) -> None:
    """Make a key doubtful whose period is written in two ways by events that the comparison did not look at.

    Args:
        connection: In a transaction that has written nothing of the key.
        run_id: Of the run.
        ordinal: Of the key.
    """
    outcomes.mark(connection, run_id, [ordinal], "doubtful", _REASON, doubt=remembered_doubt.WRITTEN_TWICE)


def written_twice(connection: Connection, run_id: str) -> tuple[int, tuple[WrittenTwice, ...]]:
    """How many drifted keys of a run have a period that is written in two ways, and at most `SAMPLE_ROWS` of them."""
    asked = {"run_id": run_id, "doubts": _DOUBTS, "sample_rows": SAMPLE_ROWS}
    rows = connection.execute(_SAMPLE, asked).mappings().all()
    names = WrittenTwice.__dataclass_fields__
    return rows[0]["found"] if rows else 0, tuple(WrittenTwice(**{name: row[name] for name in names}) for row in rows)


def counters_written_twice(
    connection: Connection, run: Reconciliation, tables: BillingTables
) -> tuple[int, tuple[WrittenTwice, ...]]:
    """How many pairs of counters count one period that is written in two ways, drifted or not, and a few of them.

    Args:
        connection: In a transaction.
        run: Whose counters are looked at, all of them.
        tables: How the tables are shaped.
    """
    see_every_row(connection, COUNTERS)
    found, pairs = 0, list[WrittenTwice]()
    names = WrittenTwice.__dataclass_fields__
    for usage in run.extent.scope:
        rows = connection.execute(_SAMPLE_PAIRS, run.parameters(usage, tables)).mappings().all()
        found += rows[0]["found"] if rows else 0
        pairs += [WrittenTwice(**{name: row[name] for name in names}) for row in rows]
    return found, tuple(pairs)
