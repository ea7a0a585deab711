-- Adds the outcomes of some rows to the record of their batch.
-- Invariant: runs in the transaction that inserts the rows, so that the figures are true after a crash; a constraint checks the sum.
-- Index: the primary key of recon.backfill_batch.
-- Binds: batch_id uuid, conflict bigint, duplicate bigint, inserted bigint, partitions text[], rejected bigint
-- Binds: rows_read bigint, skipped bigint
update recon.backfill_batch
set rows_read = rows_read + :rows_read,
    inserted = inserted + :inserted,
    duplicate = duplicate + :duplicate,
    conflict = conflict + :conflict,
    rejected = rejected + :rejected,
    skipped = skipped + :skipped,
    partitions = array(select distinct unnest(partitions || cast(:partitions as text[])) order by 1)
where batch_id = cast(:batch_id as uuid)
