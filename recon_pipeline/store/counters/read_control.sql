-- What keeps a chunk from repairing: the pause that is in force, and whether there is any hold.
-- Invariant: one row. The newest row of recon.control is in force (rows are numbered in the order in which they commit); a pause ends by
-- this server's clock.
-- Index: the primary key of recon.control, one row; recon.hold, those that are not released.
select
    exists (select from recon.hold where released_at is null and until > clock_timestamp()) as has_holds,
    pause.reason, pause.paused_by, pause.paused_at, pause.until
from (select) as always
left join (
    select latest.reason, latest.acted_by as paused_by, latest.acted_at as paused_at, latest.until
    from (select * from recon.control order by id desc limit 1) as latest
    where latest.action = 'pause'
        and (latest.until is null or latest.until > clock_timestamp())
) as pause on true
