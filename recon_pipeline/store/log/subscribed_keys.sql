-- Part of other statements: the keys in `limited` of which a subscription says something other than that they are free. Paid are those that a subscription
-- of a paid status covers; unknown is the limit of the others, whose period had ended before that of a subscription began: its row keeps no
-- earlier one. A subscription whose period is still to come says nothing of those that are over by then.
-- Invariant: each key at most once, so that joining it multiplies nothing. Bounds that lie at most a second apart are one instant, which two programs
-- wrote to other fractions of a second.
-- Index: billing_subscriptions by customer where there is one; the keys are few, or one hash serves them all.
-- Binds: gateway_name text, paid_statuses text[]
select
    limited.gateway_customer_id, limited.period_start, limited.period_end,
    bool_or(
        subscription.status::text = any(:paid_statuses)
        and subscription.current_period_start <= limited.period_start + interval '1 second'
        and subscription.current_period_end >= limited.period_end - interval '1 second'
    ) is true as is_paid
from limited
join billing_subscriptions as subscription
    on subscription.gateway_customer_id = limited.gateway_customer_id
    and subscription.gateway_name = :gateway_name
    and (
        (
            subscription.status::text = any(:paid_statuses)
            and subscription.current_period_start <= limited.period_start + interval '1 second'
            and subscription.current_period_end >= limited.period_end - interval '1 second'
        )
        or (
            subscription.current_period_start >= limited.period_end - interval '1 second'
            and subscription.current_period_start <= now()
        )
    )
group by limited.gateway_customer_id, limited.period_start, limited.period_end
