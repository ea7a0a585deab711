-- One change of pauses and holds at a time.
-- Invariant: ends with the transaction, so that rows are numbered in the order in which they commit; the number is this product's own.
select pg_advisory_xact_lock(720271130)
