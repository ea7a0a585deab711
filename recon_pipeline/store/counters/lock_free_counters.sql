-- Locks the counters of a chunk that no other session has locked, in order, and returns their keys.
-- Invariant: never waits, so it never makes the application wait for a lock that it waits for itself.
-- Index: the primary key of recon.counter_drift; the unique key of the counters.
-- Binds: ordinals bigint[], run_id text
select drift.ordinal, counter.id as counter_id
from recon.counter_drift as drift
join billing_usage_counters as counter
    using (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
where drift.run_id = :run_id
    and drift.ordinal = any(:ordinals)
order by drift.ordinal
for no key update of counter skip locked
