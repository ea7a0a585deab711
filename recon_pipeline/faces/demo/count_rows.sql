-- Invariant: all counts are of one snapshot. Reads the tables whole; uses no index.
select
    (select count(*) from billing_usage_events) as event_count,
    (select count(*) from billing_usage_counters) as counter_count,
    (select count(*) from billing_subscriptions) as subscription_count
