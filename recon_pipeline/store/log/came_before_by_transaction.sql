-- Part of countable_events_deduplicated: which of two events arrived first, where rows carry transaction ids.
-- Invariant: arrival is the order of transactions, so what is decided below the horizon stays decided. Rows from before there were
-- transaction ids come first. Within a transaction created_at, id and physical place decide.
(
    coalesce(earlier.ingest_xid, '0'), coalesce(earlier.created_at, '-infinity'),
    earlier.id, earlier.event_table, earlier.event_place
) < (
    coalesce(event.ingest_xid, '0'), coalesce(event.created_at, '-infinity'),
    event.id, event.event_table, event.event_place
)
