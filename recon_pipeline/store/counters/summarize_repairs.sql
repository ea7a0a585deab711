-- The outcomes of a run's drifted keys, and the quota transitions of its ledger rows, by billing month.
-- Invariant: every drifted key of the run is counted under exactly one outcome. A key with a row in the ledger was repaired, unless its
-- outcome says otherwise. The ledger may contain more: the repairs of an earlier attempt, before the comparison was made again.
-- Index: the primary key of recon.counter_drift, by run; recon.counter_repair by run. A full join never becomes a nested loop, whatever old
-- statistics the planner has.
-- Binds: run_id text
select
    recon.billing_month(coalesce(drift.period_start, repair.period_start)) as partition,
    count(*) filter (where outcome = 'repaired' or outcome is null and drift.id = repair.drift_id) as repaired,
    count(*) filter (where outcome = 'in_sync') as in_sync,
    count(*) filter (where outcome = 'deferred') as deferred,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'held') as held,
    count(*) filter (where outcome = 'doubtful') as doubtful,
    count(*) filter (where outcome is null and drift.id is not null and repair.drift_id is null) as untouched,
    count(*) filter (where repair.over_quota_transition) as over_quota_transitions,
    count(*) filter (where repair.under_quota_transition) as under_quota_transitions
from (
    select id, outcome, period_start from recon.counter_drift where run_id = :run_id
) as drift
full join (
    select drift_id, period_start, over_quota_transition, under_quota_transition from recon.counter_repair where run_id = :run_id
) as repair on repair.drift_id = drift.id
group by 1
