-- Forgets held keys of a metered usage that a run has looked at, before it notes those that it still left alone.
-- Invariant: the run saw each of them when it compared: it was written by a transaction below the run's horizon.
-- Index: the primary key of recon.held_key; those of a metered usage are few.
delete from recon.held_key
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
    and noted_xid < (select horizon from recon.reconciliation_run where run_id = :run_id)
