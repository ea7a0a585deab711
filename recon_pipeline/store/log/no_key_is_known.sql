-- Part of compare_counters: no subscribed keys, if there is no table billing_subscriptions. The limits are then unknown (:limits_known).
select limited.gateway_customer_id, limited.period_start, limited.period_end, false as is_paid from limited where false
