-- Part of other statements: the counters of an extent, or of the keys in `given`.
-- Index: none for all months, counters are few beside the log; for given keys the unique key of the counters.
-- Binds: customers text[], end timestamptz, every_customer boolean, every_key boolean, gateway_name text
-- Binds: start timestamptz, usage_type text
select gateway_customer_id, period_start, period_end, usage_count::bigint as usage_count
from billing_usage_counters
where :every_key
    and gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
    and octet_length(gateway_customer_id) <= 1000
    and period_end is not null
union all
select given.gateway_customer_id, given.period_start, given.period_end, counter.usage_count
from given
cross join lateral (
    select usage_count::bigint as usage_count
    from billing_usage_counters
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id = given.gateway_customer_id
        and period_start = given.period_start
        and period_end = given.period_end
    limit 1
) as counter
