-- Whether an event carries a transaction id that this server has not come to.
-- Invariant: a row that is visible was written by a transaction below the snapshot's upper end, or on another server.
-- Index: ingest_xid, in whose order rows are asked for, so that the planner takes it; stops at the first row.
select exists (
    select
    from (
        select
        from billing_usage_events
        where ingest_xid >= pg_snapshot_xmax(pg_current_snapshot())
        order by ingest_xid
        limit 1
    ) as foreign_event
)
