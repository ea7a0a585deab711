-- Inserts late events whose request ids are new, as one does it by hand.
-- Index: the unique key on request ids.
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, event_timestamp, period_start, period_end
)
select
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, event_timestamp, period_start, period_end
from pg_temp.late_event
on conflict do nothing
