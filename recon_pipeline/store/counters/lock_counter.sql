-- Locks the counter of one key, and waits at most lock_timeout for another session that has locked it.
-- Invariant: the transaction has no other lock on the application's rows while it waits.
-- Index: the primary key of recon.counter_drift; the unique key of the counters.
-- Binds: ordinals bigint[], run_id text
select drift.ordinal, counter.id as counter_id
from recon.counter_drift as drift
join billing_usage_counters as counter
    using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
where drift.run_id = :run_id
    and drift.ordinal = any(:ordinals)
for no key update of counter
