-- How far was noticed, locked until the transaction ends.
-- Invariant: two that notice do so one after the other, so that nothing is told twice.
-- Index: none, one row.
select watching_since, paused_at, runs_noticed_until, clock_timestamp() as now
from recon.alert_watch
for update
