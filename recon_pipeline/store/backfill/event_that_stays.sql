-- Part of other statements: an event of the log for a person, beside the row that differs from it.
jsonb_build_object(
    'id', event.id, 'gateway_name', event.gateway_name, 'gateway_customer_id', event.gateway_customer_id,
    'usage_type', event.usage_type, 'request_id', event.request_id, 'quantity', event.quantity,
    'period_start', event.period_start, 'period_end', event.period_end, 'event_timestamp', event.event_timestamp
)
