-- Remembers that the aggregates are of another log from now on.
-- Index: the primary key of recon.event_log.
update recon.event_log
set identity = :identity, first_seen_at = clock_timestamp()
