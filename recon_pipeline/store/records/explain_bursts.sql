-- The minutes in which most usage of one key happened.
-- Index: as {countable_of_key} says.
-- Uses: countable_of_key
-- Binds: rows bigint
select
    date_trunc('minute', coalesce(countable.event_timestamp, countable.created_at), 'UTC') as minute,
    count(*) as event_count,
    sum(countable.quantity)::numeric as usage_count
from ({countable_of_key}) as countable
group by 1
having count(*) > 1
order by usage_count desc, minute
limit :rows
