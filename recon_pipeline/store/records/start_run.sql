-- Opens the record of a run, or opens it again for a later or retried step, and notes its session.
-- Invariant: one row for each run of Dagster's.
-- Index: the primary key of recon.reconciliation_run.
-- Binds: customers text[], first_partition text, last_partition text, mode text, mode_reason text, run_id text
-- Binds: scope text[]
insert into recon.reconciliation_run (
    run_id, mode, mode_reason, scope, first_partition, last_partition, customers, horizon,
    session_pid, session_start, step_started_at
)
values (
    :run_id, :mode, :mode_reason, :scope, :first_partition, :last_partition, :customers, pg_snapshot_xmin(pg_current_snapshot()),
    pg_backend_pid(), (select backend_start from pg_stat_activity where pid = pg_backend_pid()), clock_timestamp()
)
on conflict (run_id) do update set
    outcome = 'running', finished_at = null, error = null,
    session_pid = excluded.session_pid, session_start = excluded.session_start, step_started_at = excluded.step_started_at
returning
    horizon::text as horizon,
    (
        select max(started_at)
        from recon.reconciliation_run as earlier
        where earlier.outcome in ('clean', 'not_clean', 'compared', 'paused')
    ) as previous_started_at
