-- Locks the horizon rows of some months, in order, creating those that are new: one run at a time stores their aggregates.
-- Invariant: held to the end of the transaction that writes the aggregates.
-- Index: the primary key of recon.horizon.
insert into recon.horizon as horizon (partition, horizon, run_id, aggregated_at)
select month, pg_snapshot_xmin(pg_current_snapshot()), :run_id, now()
from unnest(cast(:partitions as text[])) as month
order by month
on conflict (partition)
do update set horizon = excluded.horizon, run_id = excluded.run_id, aggregated_at = excluded.aggregated_at
