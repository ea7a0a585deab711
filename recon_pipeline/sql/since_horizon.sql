-- Part of other statements: the events between two horizons. All their transactions have ended, so these rows are final.
-- Index: ingest_xid.
event.ingest_xid >= cast(:since as xid8) and event.ingest_xid < cast(:horizon as xid8)
