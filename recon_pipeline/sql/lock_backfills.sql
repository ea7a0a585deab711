-- Lets one chunk of one backfill in at a time.
-- Invariant: ends with the transaction. Where request ids are not unique by constraint, it is what keeps two backfills from
-- inserting one request twice; elsewhere it keeps them from waiting for each other's rows.
select pg_advisory_xact_lock(hashtextextended('recon_pipeline backfill', 0))
