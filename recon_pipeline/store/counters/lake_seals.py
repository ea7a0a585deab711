"""Seals of months whose counters followed a count in the lake: what is sealed, and what later counts say otherwise.

Invariant: the sealed sums are those of one count, which the seal names with all that the sums can be derived from
again. Postgres has none of their events: corrections compare the seal with the newest count of the month.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters.seal_records import NotSealedError
from recon_pipeline.store.lake.counts import LakeCount, newest_counts
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.sealed_months import SealedMonth
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.run import Reconciliation

# Seals the sums of a count in the lake; there is no event to make a checksum of.
# Index: the primary key of recon.lake_counter.
# Binds: count_id bigint, seal_id bigint
_SEAL_COUNT = labelled(
    "seal_lake_count",
    """
    insert into recon.sealed_counter (
        seal_id, gateway_customer_id, period_start, period_end, usage_count, event_count, credit_units, event_checksum
    )
    select
        :seal_id, gateway_customer_id, period_start, period_end, usage_count::bigint, event_count, credit_units, 0
    from recon.lake_counter
    where count_id = :count_id
    order by gateway_customer_id, period_start, period_end
    """,
)
# The last end of a period that a count has events of, if it is after a time, as Postgres prints it.
# Index: the primary key of recon.lake_counter, by count.
# Binds: complete_until timestamptz, count_id bigint
_ENDS_LATER = labelled(
    "lake_period_ends_later",
    """
    select max(period_end)::text
    from recon.lake_counter
    where count_id = :count_id and period_end > :complete_until
    """,
)
# The keys whose sum in the newest count of a sealed month differs from its seal, the largest difference first.
# Index: the primary keys of recon.sealed_counter and recon.lake_counter; none of recon.lake_count, which is small.
# Binds: gateway_name text, partition text, sample_rows bigint, seal_id bigint, usage_type text
_SINCE_COUNT = labelled(
    "lake_sums_since_seal",
    """
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        coalesce(sealed.usage_count, 0)::text as sealed_sum, coalesce(sealed.event_count, 0) as sealed_events,
        trim_scale(coalesce(counted.usage_count, 0))::text as sum_now, coalesce(counted.event_count, 0) as events_now,
        trim_scale(coalesce(counted.usage_count, 0) - coalesce(sealed.usage_count, 0))::text as difference,
        coalesce(counted.event_count, 0) - coalesce(sealed.event_count, 0) as events,
        count(*) over () as keys,
        sum(abs(coalesce(counted.event_count, 0) - coalesce(sealed.event_count, 0))) over ()::bigint
            as events_differing,
        trim_scale(sum(abs(coalesce(counted.usage_count, 0) - coalesce(sealed.usage_count, 0))) over ())::text as units
    from (select * from recon.sealed_counter where seal_id = :seal_id) as sealed
    full join (
        select *
        from recon.lake_counter
        where count_id = (
                select min(id)
                from recon.lake_count
                where gateway_name = :gateway_name and usage_type = :usage_type and partition = :partition
            )
    ) as counted using (gateway_customer_id, period_start, period_end)
    where (sealed.usage_count, sealed.event_count) is distinct from (counted.usage_count, counted.event_count)
    order by
        abs(coalesce(counted.usage_count, 0) - coalesce(sealed.usage_count, 0)) desc, gateway_customer_id, period_start
    limit cast(:sample_rows as bigint)
    """,
)


def count_followed(connection: Connection, tables: BillingTables, run: Reconciliation) -> dict[Any, LakeCount]:
    """By metered usage, the count that the month of an extent follows, of those that follow one.

    Raises:
        NotSealedError: The lake may still get events of one of them.
    """
    month = run.extent.first
    followed = {one.seal_id for usage in run.extent.scope for one in tables.standing_in(usage, run.extent)}
    found = {one.usage: one for one in newest_counts(connection).values() if one.id in followed}
    for count in found.values():
        _require_complete(connection, count, month)
    return found


def seal_sums(connection: Connection, count: LakeCount, *, seal_id: int) -> dict[str, Any]:
    """Seal the sums of a count; returns what the seal says of where they are from."""
    connection.execute(_SEAL_COUNT, {"seal_id": seal_id, "count_id": count.id})
    return {
        "count_id": count.id,
        "engine": count.engine,
        "complete_until": count.complete_until.isoformat(),
        **count.source,
    }


def since_count(connection: Connection, sealed: SealedMonth, *, sample_rows: int | None = None) -> Sequence[Any]:
    """The keys of which the newest count in the lake says otherwise than a seal, the largest difference first.

    Args:
        connection: In a transaction.
        sealed: By a seal of a count in the lake.
        sample_rows: At most so many of the keys; None: all.
    """
    of_month = {"partition": sealed.month.key, "seal_id": sealed.seal_id}
    asked = {**vars(sealed.usage), **of_month, "sample_rows": sample_rows}
    return connection.execute(_SINCE_COUNT, asked).all()


def _require_complete(connection: Connection, count: LakeCount, month: BillingMonth) -> None:
    asked = {"count_id": count.id, "complete_until": count.complete_until}
    last_end = connection.execute(_ENDS_LATER, asked).scalar_one()
    if count.complete_until >= month.end and last_end is None:
        return
    until = BillingMonth.containing(count.complete_until).key
    raise NotSealedError(
        f"{month.key} of {count.usage} cannot be sealed: its counters follow the lake, which may still get events of "
        f"its periods: it was counted with RECON_LAKE_COMPLETE_UNTIL={until}.",
        fix=f"When the lake has all of them: set RECON_LAKE_COMPLETE_UNTIL later, recon count-lake --period "
        f"{month.key}, recon reconcile --period {month.key}, then recon seal --period {month.key} again.",
    )
