-- The keys of one customer in a range of months, the latest periods first, with their counters, and why a run left a counter as it is.
-- Invariant: each key with a counter or an event is there once; a period that has not begun comes last.
-- Index: the events by gateway_customer_id; the unique key of the counters and of recon.open_key.
-- Binds: customer text, end timestamptz, gateway_names text[], rows bigint, start timestamptz, usage_types text[]
select
    key.gateway_name, key.usage_type, key.period_start, key.period_end, counter.usage_count, counter.updated_at,
    case when open.reason <> 'changed' then open.reason end as left_alone_as,
    open.error as left_alone_because
from (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from billing_usage_events
    where gateway_customer_id = :customer
    union
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from billing_usage_counters
    where gateway_customer_id = :customer
) as key
left join billing_usage_counters as counter
    using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
left join recon.open_key as open
    using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
join unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])) as scope (gateway_name, usage_type)
    on (scope.gateway_name, scope.usage_type) = (key.gateway_name, key.usage_type)
where key.period_start >= :start
    and key.period_start < :end
order by key.period_start > now(), key.period_start desc, key.period_end desc, key.gateway_name, key.usage_type
limit :rows
