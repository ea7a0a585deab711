-- Which log the aggregates are of, and where transactions stand.
-- Index: recon.invalidated_key by usage; recon.event_log has one row.
select
    (select identity from recon.event_log) as known_identity,
    exists (select from recon.invalidated_key where gateway_name is null) as was_truncated,
    pg_snapshot_xmin(pg_current_snapshot())::text as horizon,
    pg_snapshot_xmax(pg_current_snapshot())::text as next_transaction
