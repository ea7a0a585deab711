-- How long the server has been at work for this database's sessions, in milliseconds: parsing, planning and executing, not waiting for them.
-- Invariant: holds what this session did before only if it was flushed, which the second expression asks for as soon as the session is idle.
-- Index: none; one row of statistics.
select active_time, pg_stat_force_next_flush()
from pg_stat_database
where datname = current_database()
