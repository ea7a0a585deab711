-- Records who approved a repair beyond the budgets, and why.
-- Invariant: written before the first repair of the run.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set approved_by = :approved_by, approved_reason = :approved_reason, approved_run_id = :approved_run_id
where run_id = :run_id
