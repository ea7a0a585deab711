-- Remembers which log the aggregates are of; a log that is known is left alone.
-- Invariant: never waits: where another run is just writing the first row, nothing is written, and no row is to be seen. The number is this
-- product's own.
-- Index: the primary key of recon.event_log.
-- Binds: identity text
insert into recon.event_log as log (identity)
select :identity
where not exists (select from recon.event_log)
    and pg_try_advisory_xact_lock(720271126)
on conflict (is_known) do nothing
