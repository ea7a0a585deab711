-- Records why keys of a run were not repaired.
-- Invariant: what is on hold, doubtful or repaired stays so; another outcome is that of an earlier attempt.
-- Index: the primary key of recon.counter_drift; recon.counter_repair by drift.
-- Binds: error text, ordinals bigint[], outcome text, run_id text
update recon.counter_drift as drift
set outcome = :outcome, error = :error
where run_id = :run_id
    and ordinal = any(:ordinals)
    and coalesce(outcome not in ('held', 'doubtful'), true)
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
