-- Writes one row of recon.counter_drift for every key, of an extent or of those that are given, whose counter is not what the log says.
-- Invariant: log and counters are read in one statement, so at one snapshot; a counter between the settled sum and the sum of all visible events
-- is in sync (with settle_seconds 0 both are the same number). Settled is what a transaction wrote that had ended long enough ago, by the
-- horizons that runs have taken. Ordinals number the keys in lock order. A limit that nobody knows is null, and then nothing is a transition.
-- Index: as {events_of_extent_or_given} says, and the unique key of the counters.
-- Uses: events_of_extent_or_given, counters_of_extent_or_given, subscribed_keys = subscribed_keys | no_key_is_known
-- Binds: customers_given text[], gateway_name text, limit_free bigint, limit_paid bigint, limits_known boolean
-- Binds: ordinal_offset bigint, period_ends_given text[], period_starts_given text[], run_id text, settle_seconds integer
-- Binds: usage_type text
with given as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end
    from unnest(cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]))
        as key (gateway_customer_id, period_start, period_end)
),
drifted as (
    select
        gateway_customer_id,
        period_start,
        period_end,
        counter.usage_count,
        coalesce(event_sum.visible, 0) as visible_sum,
        case when :settle_seconds > 0 then coalesce(event_sum.settled, 0) else coalesce(event_sum.visible, 0) end as settled_sum,
        event_sum.visible is null as without_events
    from (
        select
            gateway_customer_id,
            period_start,
            period_end,
            sum(quantity)::numeric as visible,
            -- A case, so that where every event counts as settled this sum is not even computed.
            case when :settle_seconds > 0 then (sum(quantity) filter (where is_settled))::numeric end as settled
        from ({events_of_extent_or_given}) as event
        group by gateway_customer_id, period_start, period_end
    ) as event_sum
    full join ({counters_of_extent_or_given}) as counter using (gateway_customer_id, period_start, period_end)
    where coalesce(counter.usage_count, 0) not between
            case when :settle_seconds > 0 then coalesce(event_sum.settled, 0) else coalesce(event_sum.visible, 0) end
        and coalesce(event_sum.visible, 0)
),
subscribed as (
    {subscribed_keys}
)
insert into recon.counter_drift (
    run_id, ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    kind, usage_count, settled_sum, visible_sum, usage_limit
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
    drifted.settled_sum,
    drifted.visible_sum,
    case
        when not :limits_known then null
        when subscribed.is_paid then cast(:limit_paid as bigint)
        when subscribed.is_paid is null then cast(:limit_free as bigint)
    end
from drifted
-- Subscribed keys are drifted ones, so this is a left join; but a full join never loops through all of the one for each of the other,
-- whatever the statistics of tables that were just filled make the planner expect.
full join subscribed using (gateway_customer_id, period_start, period_end)
