-- Part of add_to_aggregates: the events of an extent between two horizons. All their transactions have ended, so these rows are final.
-- Index: ingest_xid. The condition on the extent stands in a case: by its statistics, a month that has just begun looks empty.
-- Uses: in_extent
-- Binds: horizon xid8, since xid8
event.ingest_xid >= cast(:since as xid8)
and event.ingest_xid < cast(:horizon as xid8)
and case when {in_extent} then true end
