-- Part of other statements: the events of transactions that had ended at the horizon, and those from before there were transaction ids.
-- Index: none, on purpose: nearly all of the log is below it, and a sequential scan is the fastest way through.
(event.ingest_xid >= cast(:horizon as xid8)) is not true
