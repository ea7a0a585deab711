-- Opens the record of repairs being taken back.
-- Invariant: one row for each run of Dagster's; a retried step finds it open.
-- Index: the primary key of recon.undo.
insert into recon.undo (run_id, undone_run_id, customers, reason, requested_by)
values (:run_id, :undone_run_id, :customers, :reason, :requested_by)
on conflict (run_id) do nothing
