-- Part of put_sums: the events of an extent whose transactions had ended at the horizon, and those from before there were transaction ids.
-- Index: that of the extent; nearly all of it is below the horizon.
-- Uses: in_extent
-- Binds: horizon xid8
{in_extent}
and (event.ingest_xid >= cast(:horizon as xid8)) is not true
