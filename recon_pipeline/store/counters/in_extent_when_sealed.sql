-- Part of sum_events: the events of an extent that were there when it was sealed; where events carry the transaction that inserted them.
-- Index: as {in_extent} says.
-- Uses: in_extent
-- Binds: seen pg_snapshot
{in_extent}
and (pg_visible_in_snapshot(ingest_xid, cast(:seen as pg_snapshot))) is not false
