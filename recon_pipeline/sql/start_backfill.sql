-- Opens the record of a batch.
-- Invariant: one row for each backfill that read anything, also for one that only looked.
insert into recon.backfill_batch (batch_id, run_id, sources, mapping, periods, dry_run, started_by)
values (
    cast(:batch_id as uuid), :run_id, :sources, cast(:mapping as jsonb), cast(:periods as text[]), :dry_run, :started_by
)
