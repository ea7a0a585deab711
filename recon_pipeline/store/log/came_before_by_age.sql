-- Part of countable_events_deduplicated: which of two events arrived first, where rows carry no transaction ids.
(coalesce(earlier.created_at, '-infinity'), earlier.id, earlier.tableoid, earlier.ctid)
< (coalesce(event.created_at, '-infinity'), event.id, event.tableoid, event.ctid)
