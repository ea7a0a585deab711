-- Part of other statements: the keys that this run looked at and found drifted, and those with an event that was not part of what was verified.
-- Invariant: every other key matched at the snapshot of this run's comparison.
-- Index: the primary key of recon.counter_drift, by run; ingest_xid.
select
    gateway_customer_id, period_start, period_end,
    false as is_touched, null::bigint as usage_count, null::text as counter_xid, null::tid as counter_tid
from (
    select gateway_customer_id, period_start, period_end
    from recon.counter_drift
    where run_id = :run_id
        and gateway_name = :gateway_name
        and usage_type = :usage_type
    union
    {keys_with_news}
) as key
