-- Inserts a customer's subscription.
-- Invariant: a customer of the demo has at most one subscription.
-- Index: none.
insert into billing_subscriptions (
    gateway_name, gateway_customer_id, status, current_period_start, current_period_end
) values (
    %(gateway_name)s, %(gateway_customer_id)s, %(status)s, %(current_period_start)s, %(current_period_end)s
)
