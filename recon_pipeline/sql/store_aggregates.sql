-- Brings recon.usage_aggregate for an extent in line with the log, writing only keys that changed.
-- Invariant: sums and stored rows are of one snapshot; the caller holds the horizon rows of the months concerned.
-- Index: the primary key of recon.usage_aggregate; the log as in measure_events.
with event_sum as materialized (
    select
        countable.gateway_customer_id,
        countable.period_start,
        countable.period_end,
        count(*) as event_count,
        sum(countable.quantity)::numeric as usage_count
    from ({countable_events}) as countable
    where countable.gateway_name = :gateway_name
        and countable.usage_type = :usage_type
        and countable.period_start >= :start
        and countable.period_start < :end
        and (:every_customer or countable.gateway_customer_id = any(:customers))
    group by countable.gateway_customer_id, countable.period_start, countable.period_end
),
-- A full join never loops through all of the one for each of the other, whatever the statistics of a table that was just filled
-- make the planner expect.
changed as materialized (
    select
        gateway_customer_id, period_start, period_end,
        event_sum.event_count, event_sum.usage_count
    from event_sum
    full join (
        select gateway_customer_id, period_start, period_end, event_count, usage_count
        from recon.usage_aggregate
        where gateway_name = :gateway_name
            and usage_type = :usage_type
            and period_start >= :start
            and period_start < :end
            and (:every_customer or gateway_customer_id = any(:customers))
    ) as stored using (gateway_customer_id, period_start, period_end)
    where stored.event_count is distinct from event_sum.event_count
        or stored.usage_count is distinct from event_sum.usage_count
),
written as (
    insert into recon.usage_aggregate as aggregate (
        gateway_name, usage_type, gateway_customer_id, period_start, period_end, event_count, usage_count
    )
    select :gateway_name, :usage_type, gateway_customer_id, period_start, period_end, event_count, usage_count
    from changed
    where event_count is not null
    on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    do update set event_count = excluded.event_count, usage_count = excluded.usage_count
    returning 1
),
gone as (
    delete from recon.usage_aggregate as aggregate
    using changed
    where changed.event_count is null
        and aggregate.gateway_name = :gateway_name
        and aggregate.usage_type = :usage_type
        and aggregate.gateway_customer_id = changed.gateway_customer_id
        and aggregate.period_start = changed.period_start
        and aggregate.period_end = changed.period_end
    returning 1
)
select
    (select count(*) from event_sum) as keys,
    (select coalesce(sum(event_count), 0) from event_sum)::bigint as events,
    (select coalesce(sum(usage_count), 0) from event_sum) as usage,
    (select count(*) from written) + (select count(*) from gone) as keys_changed
