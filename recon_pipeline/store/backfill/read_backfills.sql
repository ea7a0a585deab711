-- Records of batches, newest first: of one run, of one id or its beginning, or the latest.
-- Index: recon.backfill_batch by run or by start; they are few.
-- Binds: batch text, rows bigint, run_id text
select batch_id::text as batch_id, run_id, sources, periods, dry_run, started_by, started_at, finished_at, outcome,
    rows_read, inserted, duplicate, conflict, rejected, partitions, error, skipped,
    mapping
from recon.backfill_batch
where (cast(:run_id as text) is null or run_id = :run_id)
    and (cast(:batch as text) is null or starts_with(batch_id::text, :batch))
order by started_at desc
limit :rows
