-- The subscriptions of one customer: those that cover a period first, then those whose own period began when it was over, then those that were
-- canceled and cover one that has ended.
-- Invariant: the first of them gives the same limit as subscribed_keys.
-- Index: billing_subscriptions by customer, where there is one.
-- Binds: customer text, gateway_name text, paid_statuses text[], period_end timestamptz, period_start timestamptz
-- Binds: rows bigint
select
    status::text as status,
    coalesce((current_period_start at time zone 'UTC')::text, 'no date') as began_at, -- as text, whatever its year
    coalesce((current_period_end at time zone 'UTC')::text, 'no date') as ends_at,
    status::text = any(:paid_statuses)
        and current_period_start <= cast(:period_start as timestamptz) + interval '1 second'
        and current_period_end >= cast(:period_end as timestamptz) - interval '1 second' as covers,
    current_period_start >= cast(:period_end as timestamptz) - interval '1 second' and current_period_start <= now() as began_later,
    status::text in ('canceled', 'cancelled')
        and current_period_start <= cast(:period_start as timestamptz) + interval '1 second'
        and current_period_end >= cast(:period_end as timestamptz) - interval '1 second'
        and cast(:period_end as timestamptz) <= now() as ended_with_it,
    status::text = any(:paid_statuses)
        and current_period_start < cast(:period_end as timestamptz)
        and current_period_end > cast(:period_start as timestamptz) as meets_period
from billing_subscriptions
where gateway_customer_id = :customer
    and gateway_name = :gateway_name
order by covers desc nulls last, began_later desc nulls last, ended_with_it desc nulls last, current_period_end desc nulls last
limit :rows
