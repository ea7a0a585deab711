-- The current periods of subscriptions whose customer never sent an event and has no counter.
-- Invariant: the order is random, but the same for the same salt.
-- Index: billing_usage_events_customer; reads all counters.
select
    subscription.gateway_customer_id,
    subscription.current_period_start as period_start,
    subscription.current_period_end as period_end
from billing_subscriptions as subscription
where subscription.gateway_name = %(gateway_name)s
  and not exists (
    select from billing_usage_events as event
    where event.gateway_customer_id = subscription.gateway_customer_id
  )
  and not exists (
    select from billing_usage_counters as counter
    where counter.gateway_customer_id = subscription.gateway_customer_id
  )
order by hashtextextended(subscription.gateway_customer_id, %(salt)s), subscription.gateway_customer_id
limit %(limit)s
