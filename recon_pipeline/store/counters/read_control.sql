-- What keeps a chunk from repairing: the pause that is in force, and whether there may be holds.
-- Invariant: one row. The newest row of recon.control is in force (rows are numbered in the order in which they commit); a pause ends by
-- this server's clock. A hold that is not released may be over: mark_held looks, for the customers of the chunk; here all of them would be
-- read for every chunk.
-- Index: the primary key of recon.control, one row; recon.hold, one of those that are not released.
select
    exists (select from recon.hold where released_at is null) as has_holds,
    pause.reason, pause.paused_by, pause.paused_at, pause.until
from (select) as always
left join (
    select latest.reason, latest.acted_by as paused_by, latest.acted_at as paused_at, latest.until
    from (select * from recon.control order by id desc limit 1) as latest
    where latest.action = 'pause'
        and (latest.until is null or latest.until > clock_timestamp())
) as pause on true
