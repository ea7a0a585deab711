-- Locks the record of the log that the aggregates are of: one run at a time adds to them. No row where another run does.
-- Invariant: held to the end of the transaction; never waits.
-- Index: the primary key of recon.event_log.
select is_known from recon.event_log
for update skip locked
