-- Part of other statements: the keys that can differ, since everything else was verified and has not changed: counters whose row is of a
-- transaction that the verifying snapshot did not see, and keys with an event that it did not see.
-- Invariant: a row that a snapshot did not see was written by a transaction at or above the snapshot's lowest running one; ages are
-- compared within 2^31 transactions, which the caller makes sure of. A row that was frozen long ago may be looked at in vain.
-- Index: ingest_xid; counters are read whole, a glance at each row.
select gateway_customer_id, period_start, period_end
from (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from billing_usage_counters
    -- A case, so that the planner expects few of them.
    where case
        when age(xmin) <= (select age(cast(cast(:counters_verified_below as xid8) as xid))) then 1
    end = 1
    offset 0 -- keeps the other conditions out of the scan, where they would cost more than the scan itself
) as touched
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and (:every_customer or gateway_customer_id = any(:customers))
union
{keys_with_news}
