-- The reference of a repair, as one writes it by hand. It is wrong while an application counts: the subquery is not run again for a counter
-- that turns out to have changed (PostgreSQL manual, 13.2.1), so the increment is lost. It also writes no ledger.
update billing_usage_counters as counter
set usage_count = event_sum.usage_count, updated_at = now()
from (
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity) as usage_count
    from billing_usage_events
    group by gateway_name, gateway_customer_id, usage_type, period_start, period_end
) as event_sum
where counter.gateway_name = event_sum.gateway_name
    and counter.gateway_customer_id = event_sum.gateway_customer_id
    and counter.usage_type = event_sum.usage_type
    and counter.period_start = event_sum.period_start
    and counter.period_end = event_sum.period_end
    and counter.usage_count <> event_sum.usage_count
