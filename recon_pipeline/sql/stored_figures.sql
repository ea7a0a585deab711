-- Part of other statements: the aggregates of an extent, to be compared with what the log adds up to.
-- Index: the primary key of recon.usage_aggregate for some customers; none for all of them.
select
    gateway_customer_id, period_start, period_end,
    event_count, usage_count, invalid_count, dedupe_count, outside_period_count
from recon.usage_aggregate
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
