-- The keys of one metered usage that the staged events would take over their limit, with the counters as they are now.
-- Invariant: limits are paid, free and unknown as in subscribed_keys, and no counter crosses an unknown one. Runs only if there is a table
-- billing_subscriptions. Events of sealed keys move no counter.
-- Index: billing_subscriptions by customer, where there is one; the preview is read as a whole; counters by their key.
-- After: create_staged_events, declare_identity, preview_staged_events
-- Uses: subscribed_keys
-- Binds: gateway_name text, limit_free bigint, limit_paid bigint, rows bigint, sealed_months timestamptz[], sealed_until timestamptz[], usage_type text
with limited as materialized (
    select gateway_customer_id, period_start, period_end, sum(quantity) as units
    from pg_temp.preview_event
    where outcome = 'inserted'
        and gateway_name = :gateway_name
        and usage_type = :usage_type
        and recon.follows_log(period_start, period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
    group by gateway_customer_id, period_start, period_end
),
key as (
    select limited.*, coalesce(counter.usage_count, 0) as usage_count,
        case
            when subscribed.is_paid then cast(:limit_paid as bigint)
            when subscribed.is_paid is null then cast(:limit_free as bigint)
        end as usage_limit
    from limited
    left join (
        {subscribed_keys}
    ) as subscribed using (gateway_customer_id, period_start, period_end)
    left join billing_usage_counters as counter
        on counter.gateway_name = :gateway_name and counter.usage_type = :usage_type
        and counter.gateway_customer_id = limited.gateway_customer_id
        and counter.period_start = limited.period_start and counter.period_end = limited.period_end
)
select gateway_customer_id, period_start, period_end, usage_count, usage_count + units as usage_count_after, usage_limit,
    count(*) over () as total
from key
where usage_count < usage_limit and usage_limit <= usage_count + units
order by usage_count_after desc, gateway_customer_id, period_start
limit :rows
