-- Writes what was repaired into the record of a run.
-- Invariant: figures are read from drift outcomes and ledger, so they are true after a crash as well.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set
    rows_repaired = :repaired,
    deferred_count = :deferred,
    reconcile_failures = :failed,
    held_count = :held,
    paused_reason = :paused_reason,
    over_quota_transitions = :over_quota_transitions,
    under_quota_transitions = :under_quota_transitions
where run_id = :run_id
