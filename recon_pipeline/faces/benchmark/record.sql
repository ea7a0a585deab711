-- Usage of some customers in the last of the six periods, each event through the application's recorder.
-- Index: none; the customers are drawn from all counters.
select count(record_billing_usage_event(
    gateway_name, gateway_customer_id, usage_type, 'bench_' || gen_random_uuid(), period_start, period_end, 1, period_start
))
from (
    select *
    from billing_usage_counters
    where period_start >= cast(:last_start as timestamptz)
    order by hashtext(gateway_customer_id || cast(:seed as text))
    limit :keys
) as drawn
