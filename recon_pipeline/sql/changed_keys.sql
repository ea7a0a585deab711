-- Part of other statements: the keys that can differ, since everything else was verified and has not changed: counters whose row is of a
-- transaction that the verifying snapshot did not see, each as it is now, and keys with an event that it did not see.
-- Invariant: a row that a snapshot did not see was written by a transaction at or above the snapshot's lowest running one; ages are
-- compared within 2^31 transactions, which the caller makes sure of. A row that was frozen long ago may be looked at in vain.
-- Index: ingest_xid; of the counters period_start, so that those of closed months are left alone, else they are read whole, a glance at each row.
select
    gateway_customer_id, period_start, period_end,
    bool_or(is_touched) as is_touched,
    max(usage_count) as usage_count,
    max(counter_xid) as counter_xid,
    max(counter_tid) as counter_tid
from (
    select
        gateway_customer_id, period_start, period_end,
        true as is_touched, usage_count::bigint as usage_count, counter_xid::text as counter_xid, counter_tid
    from (
        select
            gateway_name, usage_type, gateway_customer_id, period_start, period_end,
            usage_count, xmin as counter_xid, ctid as counter_tid
        from billing_usage_counters
        -- A case, so that the planner expects few of them.
        where case
            when age(xmin) <= (select age(cast(cast(:counters_verified_below as xid8) as xid))) then 1
        end = 1
            and period_start >= :start
            and period_start < :end
        offset 0 -- keeps the other conditions out of the scan, where they would cost more than the scan itself
    ) as touched
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and (:every_customer or gateway_customer_id = any(:customers))
    union all
    select gateway_customer_id, period_start, period_end, false, null, null, null
    from ({keys_with_news}) as with_news
) as key
group by gateway_customer_id, period_start, period_end
