-- All periods in which log and counters know usage of some customers; null bounds for a period without an end.
-- Invariant: a backfill runs it once for each customer of whom counted_periods does not show enough, because it reads all their events.
-- Index: the unique key of counters, the log by customer.
-- Binds: customers text[], gateway_names text[]
select distinct gateway_name, gateway_customer_id, usage_type,
    case when is_bounded then period_start end as period_start,
    case when is_bounded then period_end end as period_end
from (
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end,
        (period_start >= '0001-01-02Z' and period_end < '9999-01-01Z') as is_bounded
    from (
        select gateway_name, gateway_customer_id, usage_type, period_start, period_end
        from billing_usage_counters
        where gateway_name = any(:gateway_names) and gateway_customer_id = any(:customers)
        union all
        select gateway_name, gateway_customer_id, usage_type, period_start, period_end
        from billing_usage_events
        where gateway_customer_id = any(:customers)
    ) as known
    where period_start < period_end
) as known
