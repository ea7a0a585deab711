-- The time that the server has worked for this database's sessions, in milliseconds: parsing, planning and executing, not waiting for them.
-- Invariant: it contains earlier work of this session only if that was flushed, which the second expression requests for when the session
-- is idle.
-- Index: none; one row of statistics.
select active_time, pg_stat_force_next_flush()
from pg_stat_database
where datname = current_database()
