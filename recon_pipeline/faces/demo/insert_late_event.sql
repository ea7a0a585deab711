-- Inserts an event past the recorder, so that its counter does not follow.
-- Invariant: the unique (gateway_name, request_id) refuses an event that is in the log already.
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id,
    quantity, period_start, period_end, event_timestamp
) values (
    %(gateway_name)s, %(gateway_customer_id)s, %(usage_type)s, %(request_id)s,
    %(quantity)s, %(period_start)s, %(period_end)s, %(event_timestamp)s
)
