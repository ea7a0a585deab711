-- The right to run for the cron endpoint, until this transaction ends.
-- Invariant: one at a time over all processes; a process that dies leaves nothing behind. A lock of a transaction works through
-- a pooler too; the transaction writes nothing, so it holds no horizon back.
select pg_try_advisory_xact_lock(hashtextextended('recon serve', 0)) as is_ours,
    set_config('idle_in_transaction_session_timeout', '0', true)
