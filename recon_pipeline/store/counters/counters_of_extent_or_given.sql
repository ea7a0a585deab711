-- Part of other statements: the counters of an extent, or of the keys in `given`.
-- Index: none for all months, because counters are few beside the log; for given keys the unique key of the counters.
-- Uses: in_extent
-- Binds: every_key boolean, gateway_name text, usage_type text
select gateway_customer_id, period_start, period_end, usage_count::bigint as usage_count
from billing_usage_counters
where :every_key
    and {in_extent}
    and recon.fits_index(gateway_customer_id)
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
