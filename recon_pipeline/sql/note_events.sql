-- Writes the log's figures into the record of a run.
-- Invariant: touches no other figure of the run.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set events_scanned = :events_scanned, dedupe_count = :dedupe_count
where run_id = :run_id
