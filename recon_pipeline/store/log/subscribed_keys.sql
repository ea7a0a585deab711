-- Part of other statements: the keys in `limited` that a subscription makes paid or unknown; all other keys are free. A key is paid if a
-- subscription of a paid status covers it. Else its limit is unknown where the rows do not say what the customer had: its period ended before
-- that of a subscription began, because the row keeps no earlier period; or it has ended, and a canceled subscription covers it, because the row
-- does not keep the status from before the end. A subscription whose period is still to come decides nothing.
-- Invariant: each key at most once, so that a join with it multiplies nothing. Bounds that lie at most a second apart are one instant,
-- which two programs wrote with other fractions of a second.
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
        or (
            subscription.status::text in ('canceled', 'cancelled')
            and subscription.current_period_start <= limited.period_start + interval '1 second'
            and subscription.current_period_end >= limited.period_end - interval '1 second'
            and limited.period_end <= now()
        )
    )
group by limited.gateway_customer_id, limited.period_start, limited.period_end
