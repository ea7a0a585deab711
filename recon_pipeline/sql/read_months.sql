-- How far the aggregates of one metered usage have come, for some months: no row for a month that was never built.
-- Invariant: in the transaction that reads the aggregates themselves, at its snapshot or under its lock.
-- Index: the primary keys of recon.horizon and recon.usage_month.
select
    month.partition,
    horizon.horizon::text as horizon,
    month.verified_below::text as verified_below,
    month.counters_verified_below::text as counters_verified_below,
    month.counters_kept,
    month.counters_written,
    month.recomputed_count,
    month.key_count, month.event_count, month.invalid_count, month.dedupe_count, month.outside_period_count
from recon.horizon as horizon
join recon.usage_month as month using (gateway_name, usage_type)
where horizon.gateway_name = :gateway_name
    and horizon.usage_type = :usage_type
order by month.partition
