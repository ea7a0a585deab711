-- Records why keys of a run were not repaired, and which doubt of theirs was found.
-- Invariant: what is on hold, doubtful or repaired stays so, but a doubt is known of it too; another outcome is that of an earlier attempt.
-- Index: the primary key of recon.counter_drift; recon.counter_repair by drift.
-- Binds: doubt text, error text, ordinals bigint[], outcome text, run_id text
update recon.counter_drift as drift
set
    outcome = case when outcome in ('held', 'doubtful') then outcome else :outcome end,
    error = case when outcome in ('held', 'doubtful') then error else :error end,
    doubts = recon.and_doubt(doubts, cast(:doubt as text))
where run_id = :run_id
    and ordinal = any(:ordinals)
    and (cast(:doubt as text) is not null or coalesce(outcome not in ('held', 'doubtful'), true))
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
