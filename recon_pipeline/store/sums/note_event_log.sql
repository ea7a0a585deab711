-- Records which log the aggregates are of; a known log stays as it is.
-- Invariant: never waits: while another run writes the first row, this writes nothing and sees no row. The number is this product's own.
-- Index: the primary key of recon.event_log.
-- Binds: identity text
insert into recon.event_log as log (identity)
select :identity
where not exists (select from recon.event_log)
    and pg_try_advisory_xact_lock(720271126)
on conflict (is_known) do nothing
