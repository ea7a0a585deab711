-- Part of other statements: no key is known to be subscribed, as there is no table billing_subscriptions; the statement around it says so.
select limited.gateway_customer_id, limited.period_start, limited.period_end, false as is_paid from limited where false
