-- Records which drifted keys of a run are left alone because their customer is on hold.
-- Invariant: a key that was repaired stays repaired; one that was held stays so to the end of the run, whatever becomes of the hold.
-- A full join never becomes a nested loop, however many keys and holds there are.
-- Index: the primary key of recon.counter_drift; recon.counter_repair by drift; recon.hold, those that are not released.
-- Binds: ordinals bigint[], run_id text
with held as materialized (
    select distinct on (drift.ordinal) drift.run_id, drift.ordinal, hold.held_by, hold.reason
    from (
        select run_id, ordinal, gateway_customer_id, period_start
        from recon.counter_drift
        where run_id = :run_id
            and (cast(:ordinals as bigint[]) is null or ordinal = any(:ordinals))
            and coalesce(outcome, 'deferred') = 'deferred'
    ) as drift
    full join (
        select id, gateway_customer_id, partition, held_by, reason
        from recon.hold
        where released_at is null
            and until > clock_timestamp()
    ) as hold using (gateway_customer_id)
    where case
        when drift.ordinal is not null and hold.id is not null
            then coalesce(hold.partition = recon.billing_month(drift.period_start), true)
    end
    order by drift.ordinal, hold.id
)
update recon.counter_drift as drift
set outcome = 'held', error = 'held by ' || held.held_by || ': ' || held.reason
from held
-- The run comes from `held`, as in doubt_events_left.
where (drift.run_id, drift.ordinal) = (held.run_id, held.ordinal)
    and coalesce(drift.outcome, 'deferred') = 'deferred'
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
