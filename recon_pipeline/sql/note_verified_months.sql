-- Remembers of some months that every counter of theirs matched the log in a run, and when that run had started.
-- Invariant: only of runs over every customer; an earlier run never replaces a later one.
-- Index: the primary keys of recon.verified_month and recon.reconciliation_run.
insert into recon.verified_month as verified (partition, verified_at, run_id)
select month, run.started_at, run.run_id
from recon.reconciliation_run as run
cross join unnest(cast(:partitions as text[])) as month
where run.run_id = :run_id
    and run.customers is null
order by month
on conflict (partition)
do update set verified_at = excluded.verified_at, run_id = excluded.run_id
where verified.verified_at < excluded.verified_at
