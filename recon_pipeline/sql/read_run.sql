-- The record of one run.
-- Index: the primary key of recon.reconciliation_run.
select *, horizon::text as horizon_text,
    extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8 * 1000 as duration_ms
from recon.reconciliation_run
where run_id = :run_id
