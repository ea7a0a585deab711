-- The reference of detection: a full join as one writes it by hand.
select count(*)
from (
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity) as usage_count
    from billing_usage_events
    group by gateway_name, gateway_customer_id, usage_type, period_start, period_end
) as event_sum
full join billing_usage_counters as counter
    using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
where event_sum.usage_count is distinct from counter.usage_count
