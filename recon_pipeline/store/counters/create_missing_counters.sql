-- Gives the keys of a chunk that have no counter a row of 0, so that there is something to lock.
-- Invariant: a row that appears meanwhile is left as it is, whichever unique key of the table it meets (its columns may be fewer than ours);
-- keys are inserted in the order in which they are locked.
-- Index: the primary key of recon.counter_drift; the unique key of the counters.
-- Binds: ordinals bigint[], run_id text
insert into billing_usage_counters (
    gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
)
select gateway_name, gateway_customer_id, usage_type, period_start, period_end, 0
from recon.counter_drift
where run_id = :run_id
    and ordinal = any(:ordinals)
order by ordinal
on conflict do nothing
