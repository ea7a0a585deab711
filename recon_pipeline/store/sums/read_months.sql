-- What is stored of the months of one metered usage; no row for a month that was never built.
-- Invariant: runs in the transaction that reads the aggregates themselves, at its snapshot or under its lock.
-- Index: the primary key of recon.usage_month.
-- Binds: first text, gateway_name text, last text, usage_type text
select
    month.partition, month.verified_below::text as verified_below, month.counters_verified_below::text as counters_verified_below,
    month.key_count, coalesce(stand_in.nonzero_count + of_log.nonzero_count, month.nonzero_count) as nonzero_count, month.event_count,
    month.invalid_count, month.dedupe_count, month.outside_period_count, month.negative_count,
    stand_in.seal_id, month.verified_seal_id
from recon.usage_month as month
left join recon.stand_in as stand_in using (gateway_name, usage_type, partition)
-- Of keys that follow the log in a month with a seal.
left join lateral (
    select count(*) as nonzero_count
    from recon.usage_aggregate as aggregate
    where aggregate.gateway_name = month.gateway_name
        and aggregate.usage_type = month.usage_type
        and aggregate.period_start >= (month.partition || '-01 00:00+00')::timestamptz
        and aggregate.period_start < ((month.partition || '-01')::date + interval '1 month') at time zone 'UTC'
        and aggregate.period_end > stand_in.covers_until
        and aggregate.usage_count <> 0
        -- Nothing is read where the month has no such key.
        and month.last_period_end > stand_in.covers_until
) as of_log on true
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition between :first and :last
order by month.partition
