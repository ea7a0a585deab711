-- What is stored of the months of one metered usage; no row for a month that was never built.
-- Invariant: runs in the transaction that reads the aggregates themselves, at its snapshot or under its lock.
-- Index: the primary key of recon.usage_month.
-- Binds: first text, gateway_name text, last text, usage_type text
select
    partition, verified_below::text as verified_below, counters_verified_below::text as counters_verified_below,
    key_count, nonzero_count, event_count, invalid_count, dedupe_count, outside_period_count, negative_count
from recon.usage_month
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and partition between :first and :last
order by partition
