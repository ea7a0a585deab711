-- The keys of a chunk that this run's comparison found, that no repair has changed and nobody holds.
-- Invariant: a step that is run again leaves alone what it repaired before.
-- Index: the primary key of recon.counter_drift, by range; recon.counter_repair by drift.
select drift.ordinal
from recon.counter_drift as drift
where drift.run_id = :run_id
    and drift.ordinal between :first and :last
    and drift.outcome is distinct from 'held'
    and not exists (select from recon.counter_repair as repair where repair.drift_id = drift.id)
order by drift.ordinal
