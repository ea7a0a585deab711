-- Creates the indexes of the log again, as billing_tables.sql makes them. Run without parameters.
alter table billing_usage_events add primary key (id);
alter table billing_usage_events add unique (gateway_name, request_id);
create index billing_usage_events_customer on billing_usage_events (gateway_customer_id, event_timestamp desc);
create index billing_usage_events_period on billing_usage_events (usage_type, period_start, period_end);
