-- Part of other statements: the drifted keys whose customer holds a subscription that covers the key's period.
-- Invariant: each key at most once, so that joining it multiplies nothing.
-- Index: billing_subscriptions by customer where there is one; the drifted keys are few, or one hash serves them all.
-- Binds: gateway_name text
select distinct drifted.gateway_customer_id, drifted.period_start, drifted.period_end
from drifted
join billing_subscriptions as subscription
    on subscription.gateway_customer_id = drifted.gateway_customer_id
    and subscription.gateway_name = :gateway_name
    and subscription.status::text in ('active', 'trialing')
    and subscription.current_period_start <= drifted.period_start
    and subscription.current_period_end >= drifted.period_end
