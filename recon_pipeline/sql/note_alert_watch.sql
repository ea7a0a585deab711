-- Moves on to where runs are noticed now, and remembers a pause while there is one.
-- Index: none, one row.
update recon.alert_watch
set
    runs_noticed_until = greatest(runs_noticed_until, :runs_noticed_until),
    paused_at = case when :is_paused then clock_timestamp() else paused_at end
