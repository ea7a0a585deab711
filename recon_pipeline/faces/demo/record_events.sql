-- Records events through the application's recorder, and returns how many were new.
-- Invariant: the events are recorded in the given order, so that counters are locked in the order of their keys.
-- Index: the unique (gateway_name, request_id) of the log; the unique key of the counters.
select count(*) filter (
    where record_billing_usage_event(
        %(gateway_name)s, event.gateway_customer_id, %(usage_type)s, event.request_id,
        event.period_start, event.period_end, event.quantity, event.event_timestamp
    )
) as recorded_count
from json_to_recordset(%(events)s::json) as event (
    gateway_customer_id text,
    request_id text,
    period_start timestamptz,
    period_end timestamptz,
    quantity integer,
    event_timestamp timestamptz
)
