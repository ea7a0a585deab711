-- Locks the counters of some repairs that no other session has locked, in order, and returns the repairs.
-- Invariant: never waits, so it never makes the application wait for a lock that it waits for itself.
-- Index: the primary key of recon.counter_repair; the unique key of the counters.
-- Binds: ids bigint[]
select repair.id as repair_id, counter.id as counter_id
from recon.counter_repair as repair
join billing_usage_counters as counter
    using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
where repair.id = any(:ids)
order by counter.gateway_name, counter.usage_type, counter.gateway_customer_id, counter.period_start, counter.period_end
for no key update of counter skip locked
