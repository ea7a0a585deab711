-- Locks the record of the log that the aggregates are of, so that one run at a time adds to them. Returns no row if another run has locked
-- it.
-- Invariant: locked to the end of the transaction; never waits.
-- Index: the primary key of recon.event_log.
select is_known from recon.event_log
for update skip locked
