-- The reference of event sums: the sums alone.
select count(*), sum(usage_count)
from (
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity) as usage_count
    from billing_usage_events
    group by gateway_name, gateway_customer_id, usage_type, period_start, period_end
) as event_sum
