-- Waits until every transaction has ended that had begun to repair before (enter_chunk).
-- Invariant: the lock is had for an instant only, and ends with the transaction.
select pg_advisory_xact_lock(720271131)
