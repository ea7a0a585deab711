-- What keeps a chunk from repairing: the pause that is in force, and whether there is any hold.
-- Invariant: one row; read in the statement after enter_chunk.
-- Index: the primary key of recon.control, one row; recon.hold, those that are not released.
-- Uses: read_pause
select
    exists (select from recon.hold where released_at is null and until > clock_timestamp()) as has_holds,
    pause.reason, pause.paused_by, pause.paused_at, pause.until
from (select) as always
left join ({read_pause}) as pause on true
