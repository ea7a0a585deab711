-- Inserts a counter of 0 for each key of a chunk that has none, so that there is a row to lock.
-- Invariant: a row that another session inserts meanwhile stays as it is, whichever unique key of the table it meets (its columns may be
-- fewer than ours). Keys are inserted in the order in which they are locked. A period that the columns would round gets no row, because the
-- row would be of another period.
-- Index: the primary key of recon.counter_drift; the unique key of the counters.
-- Binds: end_digits integer, ordinals bigint[], run_id text, start_digits integer
insert into billing_usage_counters (
    gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
)
select gateway_name, gateway_customer_id, usage_type, period_start, period_end, 0
from recon.counter_drift
where run_id = :run_id
    and ordinal = any(:ordinals)
    and round(extract(epoch from period_start), :start_digits) = extract(epoch from period_start)
    and round(extract(epoch from period_end), :end_digits) = extract(epoch from period_end)
order by ordinal
on conflict do nothing
