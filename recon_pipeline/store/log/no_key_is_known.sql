-- Part of other statements: no key is known to be subscribed, as there is no table billing_subscriptions; the statement around it says so.
select drifted.gateway_customer_id, drifted.period_start, drifted.period_end, false as is_paid from drifted where false
