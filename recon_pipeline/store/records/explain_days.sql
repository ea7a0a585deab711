-- The usage of one key by the UTC day on which it happened, and what it had added up to by the end of each.
-- Index: as {countable_of_key} says.
-- Uses: countable_of_key
-- Binds: rows bigint
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
    from ({countable_of_key}) as countable
    group by 1
) as day
order by day.day
limit :rows
