-- What became of a run's drifted keys, and what its ledger rows did to quotas.
-- Invariant: every drifted key of the run is counted under exactly one outcome.
-- Index: the primary key of recon.counter_drift, by run; recon.counter_repair by run.
select
    count(*) filter (where outcome = 'repaired') as repaired,
    count(*) filter (where outcome = 'in_sync') as in_sync,
    count(*) filter (where outcome = 'deferred') as deferred,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome is null) as untouched,
    (
        select count(*) from recon.counter_repair
        where run_id = :run_id and over_quota_transition
    ) as over_quota_transitions,
    (
        select count(*) from recon.counter_repair
        where run_id = :run_id and under_quota_transition
    ) as under_quota_transitions
from recon.counter_drift
where run_id = :run_id
