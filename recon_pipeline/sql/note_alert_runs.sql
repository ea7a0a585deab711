-- Takes note of runs that ended; returns those that were not known.
-- Invariant: a run is noticed once, however often it is read.
-- Index: the primary key of recon.alert_run.
insert into recon.alert_run (run_id, ended_at)
select run_id, ended_at
from unnest(cast(:run_ids as text[]), cast(:ended_at as timestamptz[])) as ended (run_id, ended_at)
on conflict do nothing
returning run_id
