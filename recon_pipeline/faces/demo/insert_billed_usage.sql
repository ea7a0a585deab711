-- Inserts an event of the past, with the counter that it makes.
-- Invariant: the unique keys of both tables refuse what is there already.
with event as (
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id,
        quantity, period_start, period_end, event_timestamp, created_at
    ) values (
        %(gateway_name)s, %(gateway_customer_id)s, %(usage_type)s, %(request_id)s,
        %(quantity)s, %(period_start)s, %(period_end)s, %(used_at)s, %(used_at)s
    )
)

insert into billing_usage_counters (
    gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
) values (
    %(gateway_name)s, %(gateway_customer_id)s, %(usage_type)s,
    %(period_start)s, %(period_end)s, %(quantity)s
)
