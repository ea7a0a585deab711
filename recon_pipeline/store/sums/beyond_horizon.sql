-- Part of measure_events: the events of an extent that follow the log and are not below the horizon.
-- Index: ingest_xid, as for those between two horizons.
-- Uses: in_extent_following_log
-- Binds: horizon xid8
event.ingest_xid >= cast(:horizon as xid8)
and case when {in_extent_following_log} then true end
