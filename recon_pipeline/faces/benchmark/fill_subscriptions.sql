-- Inserts a subscription for two of five customers, over the last period for which they have a counter.
-- Index: none; it fills an empty table.
insert into billing_subscriptions (
    gateway_name, gateway_customer_id, status, current_period_start, current_period_end
)
select gateway_name, gateway_customer_id, 'active', max(period_start), max(period_end)
from billing_usage_counters
where hashtext(gateway_customer_id) % 5 in (0, 1)
group by gateway_name, gateway_customer_id
