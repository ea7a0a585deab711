-- Part of repair_locked_counters: the event sums of the locked keys, from the log's own rows.
-- Index: billing_usage_events by gateway_customer_id, read once per chunk; the keys are asked for inside a case, so that each event is looked up in a
-- hash of them.
-- Uses: countable_events = countable_events | countable_events_deduplicated, is_settled
-- Binds: settle_seconds integer
select
    countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end,
    sum(countable.quantity)::numeric as visible,
    case
        when :settle_seconds > 0 then coalesce((sum(countable.quantity) filter (where {is_settled}))::numeric, 0)
        else sum(countable.quantity)::numeric
    end as settled
from ({countable_events}) as countable
where countable.gateway_customer_id = any(array(select distinct gateway_customer_id from locked))
    and case
        when (
            countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
            countable.period_start, countable.period_end
        ) in (select gateway_name, usage_type, gateway_customer_id, period_start, period_end from locked)
            then true
    end
group by countable.gateway_name, countable.usage_type, countable.gateway_customer_id,
    countable.period_start, countable.period_end
