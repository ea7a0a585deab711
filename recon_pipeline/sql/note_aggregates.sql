-- Writes what became of the aggregates into the record of a run.
-- Invariant: touches no other figure of the run.
-- Index: the primary key of recon.reconciliation_run.
update recon.reconciliation_run
set
    rebuilt_because = coalesce(:rebuilt_because, rebuilt_because),
    aggregates_differing = coalesce(:aggregates_differing, aggregates_differing)
where run_id = :run_id
