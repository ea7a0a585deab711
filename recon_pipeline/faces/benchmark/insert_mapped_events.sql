-- Inserts late events of a file with other names whose request ids are new, as one does it by hand; columns that are
-- not mapped go to metadata, as they do in a backfill.
-- Index: the unique key on request ids.
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, event_timestamp, period_start, period_end, metadata
)
select
    'stripe', account, 'remote_commands', reference, coalesce(units::integer, 1), time::timestamptz,
    billed_from::timestamptz, billed_to::timestamptz,
    to_jsonb(late_row) - array['account', 'reference', 'units', 'time', 'billed_from', 'billed_to']
from pg_temp.late_row
on conflict do nothing
