-- Puts the pieces of staged sums together, and keeps the sum of each key of a month under the number of its count, with the record of the
-- count. Keys without a name, or whose events do not count, are in its totals alone.
-- Invariant: the sums are whole, since numeric adds without rounding. What was kept of earlier counts of the month is deleted.
-- Index: the primary key of recon.lake_counter.
-- Binds: acted_by text, complete_until timestamptz, engine text, gateway_name text, partition text, powers numeric[]
-- Binds: run_id text, source jsonb, usage_type text
with next as materialized (
    select nextval(pg_get_serial_sequence('recon.lake_count', 'id')) as id, cast(:powers as numeric[]) as powers
),
summed as materialized (
    select
        gateway_customer_id, period_start, period_end, event_count, invalid_count, dedupe_count, outside_period_count,
        trim_scale(
            usage[1] * powers[1] + coalesce(usage[2] * powers[2], 0) + coalesce(usage[3] * powers[3], 0)
            + coalesce(usage[4] * powers[4], 0) + coalesce(usage[5] * powers[5], 0) + coalesce(usage[6] * powers[6], 0)
        ) as usage_count,
        trim_scale(
            credit[1] * powers[1] + coalesce(credit[2] * powers[2], 0) + coalesce(credit[3] * powers[3], 0)
            + coalesce(credit[4] * powers[4], 0) + coalesce(credit[5] * powers[5], 0) + coalesce(credit[6] * powers[6], 0)
        ) as credit_units
    from recon.lake_staged_sum
    cross join next
),
kept as (
    insert into recon.lake_counter (
        count_id, gateway_customer_id, period_start, period_end, usage_count, event_count, credit_units
    )
    select next.id, gateway_customer_id, period_start, period_end, usage_count, event_count, credit_units
    from summed
    cross join next
    where event_count > 0 and gateway_customer_id <> ''
    order by gateway_customer_id, period_start, period_end
    returning usage_count, event_count
),
dropped as (
    delete from recon.lake_counter
    where count_id in (
            select id
            from recon.lake_count
            where gateway_name = :gateway_name and usage_type = :usage_type and partition = :partition
        )
),
total as (
    select
        coalesce(sum(invalid_count), 0)::bigint as invalid_count,
        coalesce(sum(dedupe_count), 0)::bigint as dedupe_count,
        coalesce(sum(outside_period_count), 0)::bigint as outside_period_count
    from summed
),
of_keys as (
    select
        count(*) as key_count, count(*) filter (where usage_count <> 0) as nonzero_count,
        coalesce(sum(event_count), 0)::bigint as event_count, coalesce(sum(usage_count), 0) as usage_count
    from kept
)
insert into recon.lake_count (
    id, kind, gateway_name, usage_type, partition, acted_by, run_id, engine, complete_until, source,
    key_count, nonzero_count, event_count, usage_count, invalid_count, dedupe_count, outside_period_count
)
overriding system value
select
    next.id, 'counted', :gateway_name, :usage_type, :partition, :acted_by, :run_id, :engine, :complete_until, :source,
    of_keys.key_count, of_keys.nonzero_count, of_keys.event_count, of_keys.usage_count,
    total.invalid_count, total.dedupe_count, total.outside_period_count
from next
cross join total
cross join of_keys
returning *
