-- Up to where runs were noticed.
-- Index: none, one row.
select runs_noticed_until from recon.alert_watch
