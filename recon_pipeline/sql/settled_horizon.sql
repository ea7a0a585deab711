-- The newest horizon that a run took at least settle_seconds ago, of the log as it is now.
-- Invariant: transactions below it had ended by then, so their events are visible for longer than that.
-- Index: recon.reconciliation_run by start.
select max(run.horizon)::text
from recon.reconciliation_run as run
cross join recon.event_log as log
where run.started_at > log.first_seen_at
    and run.started_at <= clock_timestamp() - make_interval(secs => :settle_seconds)
    and run.started_at > clock_timestamp() - make_interval(secs => :settle_seconds) - interval '1 day'
