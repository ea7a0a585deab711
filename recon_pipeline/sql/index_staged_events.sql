-- Finds the first event of a request id, in a source that is looked at as a whole.
create unique index on pg_temp.staged_event (ordinal)
