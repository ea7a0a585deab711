-- Creates the table in which late events wait to be exported, or to be inserted by hand. It ends with the transaction.
create temporary table late_event (
    gateway_name text, gateway_customer_id text, usage_type text, request_id text, quantity integer,
    event_timestamp timestamptz, period_start timestamptz, period_end timestamptz, device text
) on commit drop
