-- Whether an event carries a transaction id that this server has not reached.
-- Invariant: a visible row was written by a transaction below the snapshot's upper end, or on another server.
-- Index: ingest_xid, which the order of the rows makes the planner take; stops at the first row.
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
