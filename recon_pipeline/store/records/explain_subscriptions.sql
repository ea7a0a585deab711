-- The subscriptions of one customer, those that cover a period first.
-- Index: billing_subscriptions by customer, where there is one.
-- Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, rows bigint
select
    status::text as status,
    coalesce((current_period_start at time zone 'UTC')::date::text, 'no date') as first_day, -- as text, whatever its year
    coalesce((current_period_end at time zone 'UTC')::date::text, 'no date') as last_day,
    status::text in ('active', 'trialing')
        and current_period_start <= :period_start
        and current_period_end >= :period_end as covers
from billing_subscriptions
where gateway_customer_id = :customer
    and gateway_name = :gateway_name
order by covers desc nulls last, current_period_end desc nulls last
limit :rows
