-- Part of countable_events_deduplicated: which of two events arrived first, where rows carry no transaction ids.
(coalesce(earlier.created_at, '-infinity'), earlier.id, earlier.event_table, earlier.event_place)
< (coalesce(event.created_at, '-infinity'), event.id, event.event_table, event.event_place)
