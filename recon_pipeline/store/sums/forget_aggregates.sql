-- Forgets the months and the horizon, and of another log also what log it was: every aggregate is rebuilt.
-- The aggregates stay until they are: what a month added up to is the memory by which is seen what left the log.
-- Invariant: the caller has locked the row of recon.event_log. A note that another transaction relies on stays, and is taken later. Horizons that runs took before the log was first seen
-- say nothing of it; those since then do, whatever becomes of the aggregates.
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
