-- Removes what an earlier attempt of the same run had found, so that a retried step starts clean.
-- Invariant: only rows of this run; what it repaired is in the ledger.
-- Index: the primary key of recon.counter_drift, by run.
delete from recon.counter_drift where run_id = :run_id
