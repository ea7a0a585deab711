-- Adds the sums of some events to recon.usage_aggregate and to the totals of their months.
-- Invariant: the caller has locked the row of recon.event_log, and moves the horizon in the same transaction. So each event is added
-- exactly once, and no other session writes aggregates meanwhile: a key that does not exist can be inserted. What was remembered of other
-- sums of a month is forgotten with them.
-- Index: as {which_events} says; the primary keys of recon.usage_aggregate and recon.usage_month.
-- Uses: key_sums = key_sums | key_sums_deduplicated, which_events = since_horizon
-- Binds: gateway_name text, partitions text[], usage_type text
with key_sum as materialized (
    {key_sums}
),
of_built_month as materialized (
    select *
    from (
        select key_sum.*, recon.billing_month(key_sum.period_start) as partition
        from key_sum
    ) as of_month
    where partition = any(:partitions)
),
-- Nearly all keys exist already. An upsert would lock each row before it writes it, and write WAL for both.
changed as (
    update recon.usage_aggregate as aggregate
    set
        event_count = aggregate.event_count + added.event_count,
        usage_count = aggregate.usage_count + added.usage_count,
        invalid_count = aggregate.invalid_count + added.invalid_count,
        dedupe_count = aggregate.dedupe_count + added.dedupe_count,
        outside_period_count = aggregate.outside_period_count + added.outside_period_count,
        negative_count = aggregate.negative_count + added.negative_count,
        credit_units = aggregate.credit_units + added.credit_units
    from of_built_month as added
    where aggregate.gateway_name = :gateway_name
        and aggregate.usage_type = :usage_type
        and aggregate.period_start = added.period_start
        and aggregate.gateway_customer_id = added.gateway_customer_id
        and aggregate.period_end = added.period_end
    returning
        added.partition, added.period_start, added.gateway_customer_id, added.period_end,
        false as is_new, aggregate.usage_count, aggregate.usage_count - added.usage_count as usage_count_before
),
created as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        event_count, usage_count, invalid_count, dedupe_count, outside_period_count, negative_count, credit_units
    )
    select
        :gateway_name, :usage_type, added.gateway_customer_id, added.period_start, added.period_end,
        added.event_count, added.usage_count, added.invalid_count, added.dedupe_count, added.outside_period_count, added.negative_count,
        added.credit_units
    from of_built_month as added
    -- Not in is looked up in a hash, whatever the planner expects.
    where (added.period_start, added.gateway_customer_id, added.period_end)
        not in (select period_start, gateway_customer_id, period_end from changed)
    order by added.period_start, added.gateway_customer_id, added.period_end
    returning recon.billing_month(period_start) as partition, true as is_new, usage_count
),
written as (
    select partition, is_new, usage_count, usage_count_before from changed
    union all
    select partition, is_new, usage_count, 0 from created
),
of_month as (
    select
        partition,
        max(period_end) as last_period_end,
        sum(event_count)::bigint as event_count,
        sum(invalid_count)::bigint as invalid_count,
        sum(dedupe_count)::bigint as dedupe_count,
        sum(outside_period_count)::bigint as outside_period_count,
        sum(negative_count)::bigint as negative_count
    from of_built_month
    group by partition
),
of_keys as (
    select
        partition,
        count(*) filter (where is_new) as key_count,
        count(*) filter (where usage_count <> 0) - count(*) filter (where usage_count_before <> 0) as nonzero_count,
        bool_or(not recon.fits_bigint(usage_count)) as has_oversized
    from written
    group by partition
)
update recon.usage_month as month
set
    last_period_end = greatest(month.last_period_end, of_month.last_period_end),
    key_count = month.key_count + of_keys.key_count,
    nonzero_count = month.nonzero_count + of_keys.nonzero_count,
    event_count = month.event_count + of_month.event_count,
    invalid_count = month.invalid_count + of_month.invalid_count,
    dedupe_count = month.dedupe_count + of_month.dedupe_count,
    outside_period_count = month.outside_period_count + of_month.outside_period_count,
    negative_count = month.negative_count + of_month.negative_count,
    has_oversized = month.has_oversized or of_keys.has_oversized,
    summed_xid = pg_current_xact_id(),
    since_seal = null
from of_month
full join of_keys using (partition)
where month.gateway_name = :gateway_name
    and month.usage_type = :usage_type
    and month.partition = of_month.partition
returning month.partition, of_month.event_count + of_month.invalid_count + of_month.dedupe_count as events
