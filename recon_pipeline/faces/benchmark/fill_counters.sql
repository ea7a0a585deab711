-- Inserts a counter for every key of the log, equal to its event sum, in the order in which an application makes them: at the first event
-- of a period.
-- Index: none; it fills an empty table.
insert into billing_usage_counters (
    gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
)
select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity)
from billing_usage_events
group by gateway_name, gateway_customer_id, usage_type, period_start, period_end
order by min(created_at)
