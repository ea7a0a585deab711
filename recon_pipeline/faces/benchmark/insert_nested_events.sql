-- Inserts late events of nested rows whose request ids are new, as one does it by hand.
-- Index: the unique key on request ids.
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, event_timestamp, period_start, period_end, metadata
)
select
    'stripe', event #>> '{data,object,customer}', 'remote_commands', event ->> 'id',
    coalesce((event #>> '{data,object,usage,0,units}')::integer, 1), (event ->> 'time')::timestamptz,
    (event #>> '{data,object,period,start}')::timestamptz, (event #>> '{data,object,period,end}')::timestamptz,
    event #> '{data,object,device}'
from pg_temp.late_row
on conflict do nothing
