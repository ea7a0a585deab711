-- Writes one row of recon.counter_drift for every key of an extent whose counter is not what the log says.
-- Invariant: log and counters are read in one statement, so at one snapshot; a counter between the settled sum and the sum
-- of all visible events is in sync (with settle_seconds 0 both are the same number). Ordinals number the keys in lock order.
-- Index: as {usage} and {counters} say.
with changed as materialized (
    {changed_keys}
),
drifted as (
    select
        gateway_customer_id,
        period_start,
        period_end,
        counter.usage_count,
        counter.counter_xid,
        counter.counter_tid,
        coalesce(event_sum.visible, 0) as visible_sum,
        coalesce(event_sum.visible - event_sum.unsettled, 0) as settled_sum,
        event_sum.visible is null as without_events
    from (
        select
            gateway_customer_id,
            period_start,
            period_end,
            sum(visible) as visible,
            -- A case, so that where every event counts as settled this sum is not even computed.
            case when :settle_seconds > 0 then sum(unsettled) else 0 end as unsettled
        from ({usage}) as usage
        group by gateway_customer_id, period_start, period_end
    ) as event_sum
    full join ({counters}) as counter using (gateway_customer_id, period_start, period_end)
    where coalesce(counter.usage_count, 0)
        not between coalesce(event_sum.visible - event_sum.unsettled, 0) and coalesce(event_sum.visible, 0)
),
subscribed as (
    {subscribed_keys}
)
insert into recon.counter_drift (
    run_id, ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    kind, usage_count, counter_xid, counter_tid, settled_sum, visible_sum, usage_limit
)
select
    :run_id,
    :ordinal_offset + row_number() over (
        order by drifted.gateway_customer_id, drifted.period_start, drifted.period_end
    ),
    :gateway_name,
    :usage_type,
    drifted.gateway_customer_id,
    drifted.period_start,
    drifted.period_end,
    case
        when drifted.usage_count is null then 'missing'
        when drifted.without_events then 'orphan'
        when drifted.usage_count < drifted.settled_sum then 'under'
        else 'over'
    end,
    drifted.usage_count,
    drifted.counter_xid,
    drifted.counter_tid,
    drifted.settled_sum,
    drifted.visible_sum,
    case
        when not :limits_known then null
        when subscribed.gateway_customer_id is not null then cast(:limit_paid as bigint)
        else cast(:limit_free as bigint)
    end
from drifted
-- Subscribed keys are drifted ones, so this is a left join; but a full join never loops through all of the one for each of the other,
-- whatever the statistics of tables that were just filled make the planner expect.
full join subscribed using (gateway_customer_id, period_start, period_end)
