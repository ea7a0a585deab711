-- The current periods of some customers' subscriptions, in the order in which they are to be taken.
-- Invariant: a period without an end, or that ends in a year of five digits, is none that usage is billed by; one that is active or trialing comes before others, a later one before an earlier one.
-- Index: billing_subscriptions by customer where there is one.
-- Binds: customers text[]
select gateway_name, gateway_customer_id, current_period_start, current_period_end
from billing_subscriptions
where gateway_customer_id = any(:customers)
    and current_period_start < current_period_end
    and current_period_start >= '0001-01-01Z'
    and current_period_end < '9999-01-01Z'
order by status::text in ('active', 'trialing') desc, current_period_start desc, current_period_end desc
