-- Locks the counter of one repair, and waits at most lock_timeout for another session that has locked it.
-- Invariant: the transaction has no other lock on the application's rows while it waits.
-- Index: the primary key of recon.counter_repair; the unique key of the counters.
-- Binds: ids bigint[]
select repair.id as repair_id, counter.id as counter_id
from recon.counter_repair as repair
join billing_usage_counters as counter
    using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
where repair.id = any(:ids)
for no key update of counter
