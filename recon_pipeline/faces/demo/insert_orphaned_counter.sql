-- Inserts a counter without events, in a period that had none.
-- Invariant: the unique key refuses it otherwise.
insert into billing_usage_counters (
    gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
) values (
    %(gateway_name)s, %(gateway_customer_id)s, %(usage_type)s,
    %(period_start)s, %(period_end)s, %(usage_count)s
)
