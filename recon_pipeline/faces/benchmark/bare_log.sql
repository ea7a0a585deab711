-- Drops every index of the log, so that it fills quickly. Run without parameters.
alter table billing_usage_events
    drop constraint billing_usage_events_pkey,
    drop constraint billing_usage_events_gateway_name_request_id_key;
drop index billing_usage_events_customer;
drop index billing_usage_events_period;
