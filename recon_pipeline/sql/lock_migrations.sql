-- One preparation of a database at a time.
-- Invariant: ends with the transaction; the number is this product's own.
select pg_advisory_xact_lock(720271125)
