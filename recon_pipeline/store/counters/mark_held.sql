-- Records which drifted keys of a run are left alone because their customer is on hold.
-- Invariant: a key that was repaired stays repaired; one that was held stays so to the end of the run, whatever becomes of the hold.
-- Index: the primary key of recon.counter_drift; recon.counter_repair by drift; recon.hold, those that are not released.
-- Binds: ordinals bigint[], run_id text
update recon.counter_drift as drift
set outcome = 'held', error = 'held by ' || hold.held_by || ': ' || hold.reason
from (
    select distinct on (gateway_customer_id, partition) gateway_customer_id, partition, held_by, reason
    from recon.hold
    where released_at is null
        and until > clock_timestamp()
    order by gateway_customer_id, partition, id
) as hold
where drift.run_id = :run_id
    and (cast(:ordinals as bigint[]) is null or drift.ordinal = any(:ordinals))
    and coalesce(drift.outcome, 'deferred') = 'deferred'
    and drift.gateway_customer_id = hold.gateway_customer_id
    and coalesce(
        hold.partition = recon.billing_month(drift.period_start), true
    )
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
