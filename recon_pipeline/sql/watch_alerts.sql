-- Begins to watch, once: what ended before is nobody's news.
-- Index: the primary key of recon.alert_watch.
insert into recon.alert_watch (runs_noticed_until)
values (:runs_noticed_until)
on conflict do nothing
