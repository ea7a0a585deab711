-- The event sum of one drifted key below a horizon, where all transactions have ended, so that it is final. It is returned as the most and
-- the least that the counter may be, with the number of negative events, and whether there are events of the same period written in another
-- way.
-- Index: billing_usage_events by gateway_customer_id.
-- Uses: countable_events = countable_events | countable_events_deduplicated
-- Binds: end_is_in_key boolean, horizon xid8, ordinal bigint, run_id text, settle_seconds integer, settled_below xid8
select
    coalesce(sum(quantity) filter (where is_own and (is_settled or quantity > 0)), 0)::numeric::text as final_visible,
    coalesce(sum(quantity) filter (where is_own and (is_settled or quantity < 0)), 0)::numeric::text as final_settled,
    count(*) filter (where is_own and quantity < 0) as final_negatives,
    coalesce(sum(quantity) filter (where not is_own), 0) <> 0 as is_written_twice
from (
    select
        countable.quantity,
        (countable.period_start, countable.period_end) = (drift.period_start, drift.period_end) as is_own,
        :settle_seconds = 0 or recon.is_settled(countable.event_xid, cast(:settled_below as xid8)) as is_settled
    from recon.counter_drift as drift
    join ({countable_events}) as countable using (gateway_name, usage_type, gateway_customer_id)
    where drift.run_id = :run_id
        and drift.ordinal = :ordinal
        and (countable.ingest_xid >= cast(:horizon as xid8)) is not true
        and countable.period_start >= drift.period_start - interval '1 second'
        and countable.period_start <= drift.period_start + interval '1 second'
        and (
            not :end_is_in_key
            or countable.period_end = drift.period_end
            or abs(extract(epoch from countable.period_end) - extract(epoch from drift.period_end)) <= 1
        )
) as event
