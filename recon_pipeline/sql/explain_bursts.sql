-- The minutes in which most usage of one key happened.
-- Index: the events by gateway_customer_id.
select
    date_trunc('minute', coalesce(countable.event_timestamp, countable.created_at), 'UTC') as minute,
    count(*) as event_count,
    sum(countable.quantity)::numeric as usage_count
from ({countable_events}) as countable
where countable.gateway_customer_id = :customer
    and (countable.gateway_name, countable.usage_type, countable.period_start, countable.period_end)
    = (:gateway_name, :usage_type, :period_start, :period_end)
group by 1
having count(*) > 1
order by usage_count desc, minute
limit :rows
