-- Inserts the events of a chunk whose request ids are new.
-- Invariant: a request id that is there stays as it is; of several in the chunk the first is inserted. Nothing is updated.
-- Index: the unique key on request ids, or as {staged_is_new} says.
insert into billing_usage_events (
    id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,
    period_start, period_end, event_timestamp, metadata
)
select
    id, gateway_name, gateway_customer_id, usage_type, request_id, quantity,
    period_start, period_end, event_timestamp, metadata
from pg_temp.staged_event as staged
where is_first and {staged_is_new}
order by ordinal
on conflict do nothing
