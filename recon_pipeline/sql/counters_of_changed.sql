-- Part of other statements: the counters of the keys in `changed`.
-- Invariant: those that were touched are known already, from this very snapshot.
-- Index: the unique key of the counters, for each other key.
select gateway_customer_id, period_start, period_end, usage_count, counter_xid::xid as counter_xid, counter_tid
from changed
where is_touched
union all
select changed.gateway_customer_id, changed.period_start, changed.period_end, counter.usage_count, counter.counter_xid, counter.counter_tid
from changed
-- Limit 1, of what there is once: keeps the planner from reading all of the table for a few keys.
cross join lateral (
    select usage_count, xmin as counter_xid, ctid as counter_tid
    from billing_usage_counters
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and gateway_customer_id = changed.gateway_customer_id
        and period_start = changed.period_start
        and period_end = changed.period_end
    limit 1
) as counter
where not changed.is_touched
