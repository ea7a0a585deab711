-- The keys of a chunk that are still to be repaired, with their kind.
-- Invariant: a step that runs again skips what it repaired before. Keys of a customer on hold and doubtful keys are skipped.
-- Index: the primary key of recon.counter_drift, by range; recon.counter_repair by drift.
-- Binds: first bigint, last bigint, run_id text
select drift.ordinal, drift.kind
from recon.counter_drift as drift
where drift.run_id = :run_id
    and drift.ordinal between :first and :last
    and coalesce(drift.outcome not in ('held', 'doubtful'), true)
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
order by drift.ordinal
