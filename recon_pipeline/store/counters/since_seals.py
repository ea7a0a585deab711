"""What the stored sums say came after months were sealed: for the check of each run, which counts and shows a few.

Knows sums alone: `corrections` reads the log itself. Of an archived month the log may have any part of the events:
only what came later counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters.lake_seals import since_count
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.sealed_months import SealedMonth
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

# By sealed month of an extent: the keys of which other events are stored than were sealed, what they differ by, and a
# few of them.
# Invariant: the stored sums are of what the log had at the last horizon; what came since, the next run shows. Sums of a
# horizon that is older than the seal lack what was sealed, and say nothing.
# Index: the primary key of recon.sealed_counter, and that of recon.usage_aggregate by period.
# Uses: in_months.
# Binds: aggregated_below xid8, covers_until timestamptz, has_ingest_xid boolean, sample_rows bigint, seal_id bigint
_SINCE_SEAL = labelled(
    "sums_since_seal",
    """
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        coalesce(sealed.usage_count, 0)::text as sealed_sum,
        trim_scale(coalesce(stored.usage_count, 0))::text as sum_now,
        coalesce(stored.event_count, 0) - coalesce(sealed.event_count, 0) as events,
        count(*) over () as keys,
        sum(abs(coalesce(stored.event_count, 0) - coalesce(sealed.event_count, 0))) over ()::bigint as events_differing,
        trim_scale(sum(abs(coalesce(stored.usage_count, 0) - coalesce(sealed.usage_count, 0))) over ())::text as units
    from (select * from recon.sealed_counter where seal_id = :seal_id) as sealed
    full join (
        select gateway_customer_id, period_start, period_end, usage_count, event_count
        from recon.usage_aggregate
        where {in_months}
            and event_count > 0
            and period_end <= :covers_until
    ) as stored using (gateway_customer_id, period_start, period_end)
    where (sealed.usage_count, sealed.event_count) is distinct from (stored.usage_count, stored.event_count)
        and (
            not :has_ingest_xid
            or cast(:aggregated_below as xid8)
            >= (select pg_snapshot_xmax(seen)::text::xid8 from recon.month_seal where id = :seal_id)
        )
    order by
        abs(coalesce(stored.usage_count, 0) - coalesce(sealed.usage_count, 0)) desc, gateway_customer_id, period_start
    limit :sample_rows
    """,
)
# Of an archived month, which may leave the log, what came or was changed after its events were read for the archive, in
# the same form. An event that came may add up to as much as one that left, so sums alone do not show it.
# Invariant: the column ingest_xid need not be there. The log is read only if something of the month came or left. Where
# nothing did, each key was compared with its seal: `except` does that in one pass, and a join under `exists`, which is
# planned for its first row, would look at all sealed keys for each stored one.
# Index: as sums_since_seal; of the log (usage_type, period_start, period_end).
# Uses: in_months.
# Binds: covers_until timestamptz, sample_rows bigint, seal_id bigint, seen pg_snapshot
_SINCE_ARCHIVE = labelled(
    "sums_since_archive",
    """
    with sealed as materialized (
        select * from recon.sealed_counter where seal_id = :seal_id
    ),
    stored as materialized (
        select gateway_customer_id, period_start, period_end, usage_count, event_count
        from recon.usage_aggregate
        where {in_months}
            and event_count > 0
            and period_end <= :covers_until
    ),
    later as (
        select gateway_customer_id, period_start, period_end, count(*) as events, sum(quantity)::numeric as units
        from billing_usage_events as event
        where (
                (select count(*) from stored) <> (select key_count from recon.month_seal where id = :seal_id)
                or exists (
                    select gateway_customer_id, period_start, period_end, usage_count, event_count from stored
                    except
                    select gateway_customer_id, period_start, period_end, usage_count, event_count from sealed
                )
            )
            and {in_months}
            and period_end <= :covers_until
            and quantity is not null
            and (
                pg_visible_in_snapshot((to_jsonb(event) ->> 'ingest_xid')::xid8, cast(:seen as pg_snapshot)) is false
                or not recon.is_settled(event.xmin, pg_snapshot_xmax(cast(:seen as pg_snapshot)))
                or event.xmin = any(array(select pg_snapshot_xip(cast(:seen as pg_snapshot))::xid))
            )
        group by gateway_customer_id, period_start, period_end
    )
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        coalesce(sealed.usage_count, 0)::text as sealed_sum,
        trim_scale(coalesce(sealed.usage_count, 0) + units)::text as sum_now,
        events,
        count(*) over () as keys,
        sum(events) over ()::bigint as events_differing,
        trim_scale(sum(abs(units)) over ())::text as units
    from later
    left join sealed using (gateway_customer_id, period_start, period_end)
    order by abs(later.units) desc, gateway_customer_id, period_start
    limit :sample_rows
    """,
)


@dataclass(frozen=True)
class KeySinceSeal:
    """A key of a sealed month of which other events are stored than were sealed; sums as Postgres prints them.

    Attributes:
        events: More than were sealed; negative: fewer.
    """

    partition: str
    gateway_customer_id: str
    usage_type: str
    period_start: str
    period_end: str
    sealed_sum: str
    sum_now: str
    events: int


@dataclass(frozen=True)
class MonthSinceSeal:
    """What came after a month was sealed.

    Attributes:
        usage: The metered usage.
        partition: `YYYY-MM`.
        keys: Of which other events are stored than were sealed.
        events: By how many events they differ, those that came and those that left alike.
        units: The same in units, as Postgres prints it.
        sample: At most `SAMPLE_ROWS` of the keys.
    """

    usage: MeteredUsage
    partition: str
    keys: int
    events: int
    units: str
    sample: tuple[KeySinceSeal, ...]


def since_seals(
    connection: Connection, run: Reconciliation, tables: BillingTables, months: Sequence[SealedMonth]
) -> tuple[MonthSinceSeal, ...]:
    """What came after months were sealed, as stored sums say it; only months of which anything did.

    Args:
        connection: In a transaction.
        run: Of this scope.
        tables: How the tables are shaped.
        months: Which are looked at.
    """
    found: list[MonthSinceSeal] = []
    aggregated_below = horizons.position(connection, tables).aggregated_below
    of_sums = {
        "has_ingest_xid": tables.has_ingest_xid,
        "aggregated_below": None if aggregated_below is None else str(aggregated_below),
    }
    for sealed in months:
        asked = (
            run.parameters(sealed.usage, tables)
            | of_sums
            | {
                "start": sealed.month.start,
                "end": sealed.month.end,
                "seal_id": sealed.seal_id,
                "covers_until": sealed.covers_until,
                "seen": sealed.archived_seen,
            }
        )
        if sealed.is_of_lake:
            rows = since_count(connection, sealed, sample_rows=SAMPLE_ROWS)
        else:
            rows = connection.execute(_SINCE_ARCHIVE if sealed.archived_seen else _SINCE_SEAL, asked).all()
        if rows:
            sample = tuple(
                KeySinceSeal(
                    sealed.month.key, row.gateway_customer_id, sealed.usage.usage_type, row.period_start,
                    row.period_end, row.sealed_sum, row.sum_now, row.events,
                )
                for row in rows[:SAMPLE_ROWS]
            )  # fmt: skip
            first = rows[0]
            found.append(
                MonthSinceSeal(sealed.usage, sealed.month.key, first.keys, first.events_differing, first.units, sample)
            )
    return tuple(found)
