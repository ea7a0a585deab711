-- The quality of the log beyond the horizon, and for some customers also below it.
-- Invariant: read at one snapshot with the horizon and the totals of the months, which hold everything below it.
-- Index: ingest_xid; recon.usage_aggregate for some customers.
-- Uses: key_sums = key_sums | key_sums_deduplicated, which_events = beyond_horizon
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_name text, start timestamptz
-- Binds: usage_type text
with key_sum as (
    {key_sums}
)
select
    coalesce(sum(event_count + invalid_count + dedupe_count), 0)::bigint as events_scanned,
    coalesce(sum(invalid_count), 0)::bigint as invalid_count,
    coalesce(sum(dedupe_count), 0)::bigint as dedupe_count,
    coalesce(sum(outside_period_count), 0)::bigint as outside_period_count,
    (select coalesce(sum(event_count + invalid_count + dedupe_count), 0)::bigint from key_sum) as new_count
from (
    select event_count, invalid_count, dedupe_count, outside_period_count from key_sum
    union all
    select event_count, invalid_count, dedupe_count, outside_period_count
    from recon.usage_aggregate
    where not :every_customer
        and gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id = any(:customers)
        and period_start >= :start
        and period_start < :end
) as part
