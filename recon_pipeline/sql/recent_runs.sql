-- The latest runs, newest first.
-- Index: recon.reconciliation_run by start.
select *, horizon::text as horizon_text,
    extract(epoch from coalesce(finished_at, clock_timestamp()) - started_at)::float8 * 1000 as duration_ms
from recon.reconciliation_run
order by started_at desc
limit :rows
