-- Lists every counter as untouched.
-- Invariant: the limit is the paid one exactly if an active or trialing subscription's current period contains the counter's period.
-- Index: billing_subscriptions_customer; reads all counters of the usage type.
insert into demo_untouched_counter (gateway_customer_id, period_start, period_end, usage_count, usage_limit)
select
    counter.gateway_customer_id,
    counter.period_start,
    counter.period_end,
    counter.usage_count,
    case when exists (
        select from billing_subscriptions as subscription
        where subscription.gateway_name = counter.gateway_name
          and subscription.gateway_customer_id = counter.gateway_customer_id
          and subscription.status in ('active', 'trialing')
          and subscription.current_period_start <= counter.period_start
          and subscription.current_period_end >= counter.period_end
    ) then %(paid_limit)s else %(free_limit)s end
from billing_usage_counters as counter
where counter.gateway_name = %(gateway_name)s and counter.usage_type = %(usage_type)s
