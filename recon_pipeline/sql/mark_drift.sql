-- Records why keys of a run were not repaired.
-- Invariant: an outcome is set once; what was repaired stays repaired.
-- Index: the primary key of recon.counter_drift.
update recon.counter_drift
set outcome = :outcome, error = :error
where run_id = :run_id
    and ordinal = any(:ordinals)
    and outcome is null
