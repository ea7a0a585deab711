-- Forgets runs so old that Dagster has deleted them.
-- Index: recon.alert_run by end.
delete from recon.alert_run
where ended_at < cast(:runs_noticed_until as timestamptz) - make_interval(days => :days)
