-- Closes the record of a batch whose run ended without closing it; what its chunks had inserted by then is counted in it already.
-- Invariant: a batch that is closed stays as it is.
-- Index: recon.backfill_batch by run.
update recon.backfill_batch
set finished_at = clock_timestamp(), outcome = 'failed', error = :error
where run_id = :run_id
    and outcome = 'running'
