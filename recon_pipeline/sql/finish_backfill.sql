-- Closes the record of a batch, with what went wrong if anything did.
-- Index: the primary key of recon.backfill_batch.
update recon.backfill_batch
set finished_at = clock_timestamp(), outcome = :outcome, error = :error
where batch_id = cast(:batch_id as uuid)
