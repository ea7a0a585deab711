-- Remembers of some months below which transaction events and counters matched.
-- Invariant: not of a month whose aggregates were recomputed since the verifying snapshot; never takes back what a later snapshot verified.
-- Index: the primary key of recon.usage_month.
update recon.usage_month as month
set
    verified_below = cast(:verified_below as xid8),
    counters_verified_below = cast(:counters_verified_below as xid8),
    counters_kept = :counters_kept,
    counters_written = :counters_written
from unnest(cast(:partitions as text[]), cast(:recomputed_counts as bigint[])) as verified (partition, recomputed_count)
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition = verified.partition
    and month.recomputed_count = verified.recomputed_count
    and (month.verified_below is null or month.verified_below <= cast(:verified_below as xid8))
    and (
        month.counters_verified_below is null
        or month.counters_verified_below <= cast(:counters_verified_below as xid8)
    )
