-- The record of repairs that were taken back in a run.
-- Index: the primary key of recon.undo.
select * from recon.undo
where run_id = :run_id
