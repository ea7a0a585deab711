-- Part of other statements: the drifted keys of which a subscription says something other than that they are free. Paid are those that a subscription
-- of a paid status covers; unknown is the limit of the others, whose period had ended before that of a subscription began: its row keeps no
-- earlier one. A subscription whose period is still to come says nothing of those that are over by then.
-- Invariant: each key at most once, so that joining it multiplies nothing.
-- Index: billing_subscriptions by customer where there is one; the drifted keys are few, or one hash serves them all.
-- Binds: gateway_name text, paid_statuses text[]
select
    drifted.gateway_customer_id, drifted.period_start, drifted.period_end,
    bool_or(
        subscription.status::text = any(:paid_statuses)
        and subscription.current_period_start <= drifted.period_start
        and subscription.current_period_end >= drifted.period_end
    ) is true as is_paid
from drifted
join billing_subscriptions as subscription
    on subscription.gateway_customer_id = drifted.gateway_customer_id
    and subscription.gateway_name = :gateway_name
    and (
        (
            subscription.status::text = any(:paid_statuses)
            and subscription.current_period_start <= drifted.period_start
            and subscription.current_period_end >= drifted.period_end
        )
        or (subscription.current_period_start >= drifted.period_end and subscription.current_period_start <= now())
    )
group by drifted.gateway_customer_id, drifted.period_start, drifted.period_end
