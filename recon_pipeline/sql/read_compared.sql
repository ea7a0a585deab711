-- Up to where a run's comparison looked at counters; no row where it did not.
-- Index: the primary key of recon.reconciliation_run.
select compared_below::text as below, counters_kept, counters_written
from recon.reconciliation_run
where run_id = :run_id
    and compared_below is not null
