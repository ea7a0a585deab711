-- Counts the rows of the billing tables.
-- Invariant: all counts are of one snapshot.
-- Index: none; reads the tables whole.
select
    (select count(*) from billing_usage_events) as event_count,
    (select count(*) from billing_usage_counters) as counter_count,
    (select count(*) from billing_subscriptions) as subscription_count
