-- Remembers of some months below which transaction events and counters matched.
-- Invariant: not of a month whose aggregates were recomputed since the verifying snapshot; never takes back what a later snapshot verified.
-- Never waits: a month that another run is just changing is left as it is, and only looked at once more, since that run would wait for the
-- other months of ours.
-- Index: the primary key of recon.usage_month.
with free as materialized (
    select month.gateway_name, month.usage_type, month.partition
    from recon.usage_month as month
    join unnest(cast(:partitions as text[]), cast(:recomputed_counts as bigint[])) as verified (partition, recomputed_count)
        on month.partition = verified.partition
    where month.gateway_name = :gateway_name
        and month.usage_type = :usage_type
        and month.recomputed_count = verified.recomputed_count
        and (month.verified_below is null or month.verified_below <= cast(:verified_below as xid8))
        and (
            month.counters_verified_below is null
            or month.counters_verified_below <= cast(:counters_verified_below as xid8)
        )
    for no key update of month skip locked
)
update recon.usage_month as month
set
    verified_below = cast(:verified_below as xid8),
    counters_verified_below = cast(:counters_verified_below as xid8),
    counters_kept = :counters_kept,
    counters_written = :counters_written
from free
where (month.gateway_name, month.usage_type, month.partition) = (free.gateway_name, free.usage_type, free.partition)
