-- Part of countable_events_deduplicated: which of two events arrived first, by created_at.
-- Invariant: id and physical place decide between rows that arrived in one transaction.
(coalesce(earlier.created_at, '-infinity'), earlier.id, earlier.tableoid, earlier.ctid)
< (coalesce(event.created_at, '-infinity'), event.id, event.tableoid, event.ctid)
