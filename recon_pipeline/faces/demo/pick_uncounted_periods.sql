-- The current periods of subscriptions that contain a moment and have no counter row.
-- Invariant: the order is random, but the same for the same salt.
-- Index: the unique key of billing_usage_counters.
select
    subscription.gateway_customer_id,
    subscription.current_period_start as period_start,
    subscription.current_period_end as period_end
from billing_subscriptions as subscription
where subscription.gateway_name = %(gateway_name)s
  and subscription.current_period_start <= %(moment)s
  and subscription.current_period_end > %(moment)s
  and not exists (
    select from billing_usage_counters as counter
    where counter.gateway_name = subscription.gateway_name
      and counter.gateway_customer_id = subscription.gateway_customer_id
      and counter.usage_type = %(usage_type)s
      and counter.period_start = subscription.current_period_start
      and counter.period_end = subscription.current_period_end
  )
order by hashtextextended(subscription.gateway_customer_id, %(salt)s), subscription.gateway_customer_id
limit %(limit)s
