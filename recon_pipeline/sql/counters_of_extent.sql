-- Part of other statements: the counters of an extent.
-- Index: none for all months; counters are few beside the log.
select gateway_customer_id, period_start, period_end, usage_count, xmin as counter_xid, ctid as counter_tid
from billing_usage_counters
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
