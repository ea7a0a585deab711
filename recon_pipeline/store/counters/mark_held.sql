-- Records which drifted keys of a run are left alone because their customer is on hold.
-- Invariant: a key that was repaired stays repaired; one that was held stays so to the end of the run, whatever becomes of the hold.
-- Each key of a chunk and each hold is looked up by its own key, however many there are.
-- Index: the primary key of recon.counter_drift; recon.counter_repair by drift; recon.hold, those that are not released.
-- Binds: ordinals bigint[], run_id text
with asked as materialized (
    select run_id, ordinal, gateway_customer_id, period_start
    from recon.counter_drift
    where run_id = :run_id
        and cast(:ordinals as bigint[]) is null
        and coalesce(outcome, 'deferred') = 'deferred'
    union all
    select one.run_id, one.ordinal, one.gateway_customer_id, one.period_start
    from unnest(cast(:ordinals as bigint[])) as of_chunk (ordinal)
    cross join lateral (
        select run_id, ordinal, gateway_customer_id, period_start
        from recon.counter_drift
        where (run_id, ordinal) = (:run_id, of_chunk.ordinal)
            and coalesce(outcome, 'deferred') = 'deferred'
        limit 1
    ) as one
),
held as materialized (
    select asked.run_id, asked.ordinal, hold.held_by, hold.reason
    from asked
    cross join lateral (
        select held_by, reason
        from recon.hold
        where gateway_customer_id = asked.gateway_customer_id
            and released_at is null
            and until > clock_timestamp()
            and coalesce(partition = recon.billing_month(asked.period_start), true)
        limit 1
    ) as hold
)
update recon.counter_drift as drift
set outcome = 'held', error = 'held by ' || held.held_by || ': ' || held.reason
from held
-- The run comes from `held`, as in doubt_events_left.
where (drift.run_id, drift.ordinal) = (held.run_id, held.ordinal)
    and coalesce(drift.outcome, 'deferred') = 'deferred'
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
