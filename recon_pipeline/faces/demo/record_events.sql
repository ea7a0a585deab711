-- Invariant: every event goes through the application's recorder, in the order given, so that rows of
-- counters are locked in the order of their keys. Returns how many events were new. The recorder finds
-- an event by its unique (gateway_name, request_id) and a counter by its unique key.
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
