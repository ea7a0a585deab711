-- A burst: ten events for each of some keys, counted as the recorder would.
-- Index: none; the keys are drawn from all counters.
with key as materialized (
    select *
    from billing_usage_counters
    order by hashtext(id::text || cast(:seed as text))
    limit :keys
),
counted as (
    update billing_usage_counters as counter
    set usage_count = counter.usage_count + 10
    from key
    where counter.id = key.id
)
insert into billing_usage_events (
    gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, event_timestamp
)
select gateway_name, gateway_customer_id, usage_type, 'burst_' || gen_random_uuid(), 1, period_start, period_end, period_start
from key
cross join generate_series(1, 10)
