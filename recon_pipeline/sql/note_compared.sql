-- Writes up to where a run's comparison looked at counters; nulls where it did not.
-- Invariant: touches no other figure of the run.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set compared_below = cast(:below as xid8), counters_kept = :kept, counters_written = :written
where run_id = :run_id
