-- Part of other statements: the events that the aggregates do not hold yet.
-- Index: ingest_xid.
event.ingest_xid >= cast(:horizon as xid8)
