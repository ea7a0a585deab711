-- How many counters an extent holds.
-- Invariant: read in the transaction of the comparison, so that shares are of the same snapshot. The extent is written out, so that this
-- text needs no part and can be sent as it stands.
-- Index: none; the counters are few beside the log.
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_name text, start timestamptz
-- Binds: usage_type text
select count(*)
from billing_usage_counters
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
