-- What is stored of the months of one metered usage; no row for a month that was never built.
-- Invariant: runs in the transaction that reads the aggregates themselves, at its snapshot or under its lock.
-- Index: the primary key of recon.usage_month.
-- Binds: first text, gateway_name text, last text, usage_type text
select
    month.partition, month.verified_below::text as verified_below, month.counters_verified_below::text as counters_verified_below,
    month.key_count, coalesce(stand_in.nonzero_count, month.nonzero_count) as nonzero_count, month.event_count,
    month.invalid_count, month.dedupe_count, month.outside_period_count, month.negative_count,
    stand_in.seal_id, month.verified_seal_id
from recon.usage_month as month
left join recon.stand_in as stand_in using (gateway_name, usage_type, partition)
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition between :first and :last
order by month.partition
