-- The transaction that holds the horizon back: the oldest one that is still open, and for how long the horizon has not moved.
-- Invariant: no row if no transaction is open. What our role may not see of other sessions is null.
-- Index: recon.reconciliation_run by start; the views are small.
with held as (
    select
        pg_snapshot_xmin(pg_current_snapshot()) as horizon
    where pg_snapshot_xmin(pg_current_snapshot()) < pg_snapshot_xmax(pg_current_snapshot())
)
select
    held.horizon::text as horizon,
    extract(epoch from clock_timestamp() - least(
        backend.xact_start,
        prepared.prepared,
        (
            select min(started_at)
            from recon.reconciliation_run as run
            where run.horizon = held.horizon and run.started_at > clock_timestamp() - interval '30 days'
        )
    ))::float8 as seconds,
    backend.pid,
    backend.datname as database,
    backend.usename as role,
    backend.application_name as application,
    backend.state,
    prepared.gid as prepared_as
from held
left join pg_stat_activity as backend on backend.backend_xid = cast(held.horizon as xid)
left join pg_prepared_xacts as prepared on prepared.transaction = cast(held.horizon as xid)
