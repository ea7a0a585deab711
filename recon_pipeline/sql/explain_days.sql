-- The usage of one key by the UTC day on which it happened, and what it had added up to by the end of each.
-- Index: the events by gateway_customer_id.
select
    day.day,
    day.event_count,
    day.usage_count,
    sum(day.usage_count) over (order by day.day) as running_total
from (
    select
        (coalesce(countable.event_timestamp, countable.created_at) at time zone 'UTC')::date as day,
        count(*) as event_count,
        sum(countable.quantity)::numeric as usage_count
    from ({countable_events}) as countable
    where countable.gateway_customer_id = :customer
        and (countable.gateway_name, countable.usage_type, countable.period_start, countable.period_end)
        = (:gateway_name, :usage_type, :period_start, :period_end)
    group by 1
) as day
order by day.day
limit :rows
