-- Writes the comparison's figures into the record of a run.
-- Invariant: transitions are those foreseen, until repairs are counted.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set
    counters_scanned = :counters_scanned,
    drift_count = :drift_count,
    drift_by_kind = cast(:drift_by_kind as jsonb),
    over_quota_transitions = :over_quota_transitions,
    under_quota_transitions = :under_quota_transitions,
    rows_repaired = 0,
    deferred_count = 0,
    held_count = :held,
    reconcile_failures = 0
where run_id = :run_id
