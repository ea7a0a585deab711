-- Deletes the months and the horizon, and if the log is another one also its identity: every aggregate is rebuilt. The aggregates stay
-- until then, because what is stored of a month shows what left the log.
-- Invariant: the caller has locked the row of recon.event_log. A note that another transaction relies on stays, and is taken later.
-- Horizons of runs from before the log was first seen say nothing of it. Those since then do, whatever happens to the aggregates.
-- Index: none; all of it goes.
-- Binds: identity text, is_another_log boolean
with forgotten_month as (delete from recon.usage_month),
locked_note as materialized (
    select id from recon.invalidated_key for update skip locked
),
forgotten_note as (
    delete from recon.invalidated_key
    where id = any(array(select id from locked_note))
)
update recon.event_log
set
    identity = :identity,
    horizon = null,
    first_seen_at = case when :is_another_log then clock_timestamp() else first_seen_at end
