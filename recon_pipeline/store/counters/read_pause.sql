-- The pause of repairs that is in force, if one is.
-- Invariant: the newest row says what is so (rows are numbered in the order in which they commit); a pause ends by this server's clock.
-- Index: the primary key of recon.control, one row.
select latest.reason, latest.acted_by as paused_by, latest.acted_at as paused_at, latest.until
from (select * from recon.control order by id desc limit 1) as latest
where latest.action = 'pause'
    and (latest.until is null or latest.until > clock_timestamp())
