-- Takes the events of a chunk in.
copy pg_temp.staged_event (
    ordinal, id, gateway_name, gateway_customer_id, usage_type, request_id, metadata, quantity,
    period_start, period_end, event_timestamp, is_first
) from stdin
