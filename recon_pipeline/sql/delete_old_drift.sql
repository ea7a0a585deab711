-- Forgets what old comparisons had found.
-- Invariant: runs and the ledger of repairs stay.
-- Index: the primary key of recon.counter_drift, by run.
delete from recon.counter_drift
where run_id in (
    select run_id
    from recon.reconciliation_run
    where started_at < clock_timestamp() - make_interval(days => :days)
)
