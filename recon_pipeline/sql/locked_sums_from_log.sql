-- Part of repair_locked_counters: event sums of the locked keys, from the log itself.
-- Index: billing_usage_events by gateway_customer_id, read once per chunk, so that a page that holds events of several of its
-- customers is read once.
select
    countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end,
    sum(countable.quantity)::numeric as visible,
    coalesce(sum(countable.quantity) filter (
        where :settle_seconds > 0
            and countable.created_at
            between statement_timestamp() - make_interval(secs => :settle_seconds)
            and statement_timestamp() + make_interval(secs => :settle_seconds)
    ), 0) as unsettled
from ({countable_events}) as countable
where countable.gateway_customer_id = any(array(select distinct gateway_customer_id from locked where not unchanged))
    -- A case, so that the planner takes it for a filter of no known selectivity, and never for a reason to read by another index.
    and case
        when countable.gateway_name = any(array(select distinct gateway_name from locked))
            and countable.usage_type = any(array(select distinct usage_type from locked))
            and countable.period_start >= (select min(period_start) from locked)
            and countable.period_start <= (select max(period_start) from locked)
            then true
    end
group by countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end
