-- Closes the record of a run.
-- Invariant: a run that was blocked or failed stays so; a failure as a whole counts as one reconcile failure.
-- Index: the primary key of recon.reconciliation_run.
-- Binds: error text, mismatch_count bigint, outcome text, run_id text
update recon.reconciliation_run
set
    finished_at = clock_timestamp(),
    outcome = :outcome,
    error = :error,
    mismatch_count = :mismatch_count,
    reconcile_failures = case
        when :outcome = 'failed' then greatest(coalesce(reconcile_failures, 0), 1)
        else reconcile_failures
    end
where run_id = :run_id
    and outcome = 'running'
returning *
