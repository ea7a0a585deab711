-- The event sum of one drifted key below a horizon: of transactions that have all ended, so that it is final.
-- Index: billing_usage_events by gateway_customer_id.
-- Uses: countable_events = countable_events | countable_events_deduplicated, is_settled
-- Binds: horizon xid8, ordinal bigint, run_id text, settle_seconds integer
select
    coalesce(sum(countable.quantity), 0)::numeric::text as visible,
    coalesce(sum(countable.quantity) filter (where :settle_seconds = 0 or {is_settled}), 0)::numeric::text as settled
from recon.counter_drift as drift
join ({countable_events}) as countable
    using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
where drift.run_id = :run_id
    and drift.ordinal = :ordinal
    and (countable.ingest_xid >= cast(:horizon as xid8)) is not true
