-- The log that the aggregates are of, their horizon, and the server's transaction ids.
-- Index: recon.event_log has one row; recon.invalidated_key is small.
-- Binds: settle_seconds integer
select
    log.identity as known_log_identity,
    log.first_seen_at::text as known_since,
    log.horizon::text as aggregated_below,
    exists (select from recon.invalidated_key where gateway_name is null) as was_truncated,
    pg_snapshot_xmin(pg_current_snapshot())::text as oldest_transaction,
    pg_snapshot_xmax(pg_current_snapshot())::text as next_transaction,
    case
        when :settle_seconds > 0 then (
            -- The newest horizon of this log that a run took so long ago: transactions below it had ended by then.
            select max(run.horizon)
            from recon.reconciliation_run as run
            where run.started_at > log.first_seen_at
                and run.horizon <= pg_snapshot_xmin(pg_current_snapshot()) -- of this server, not of another whose dump was restored here
                and run.started_at <= clock_timestamp() - make_interval(secs => :settle_seconds)
                and run.started_at > clock_timestamp() - make_interval(secs => :settle_seconds) - interval '1 day'
        )
    end::text as settled_below
from (select) as always
left join recon.event_log as log on true
