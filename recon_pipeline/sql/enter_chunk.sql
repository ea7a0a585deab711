-- Says that this transaction is about to repair, and sets what it keeps from here on: time limits, and how the planner finds rows.
-- Invariant: whoever pauses or holds commits that first and then waits for this lock (await_chunks). So either he waits until this transaction
-- has ended, or the next statement of this transaction sees what he wrote. Nothing else is locked while this waits. The number is this
-- product's own.
select
    pg_advisory_xact_lock_shared(720271131),
    set_config('lock_timeout', :lock_timeout, true),
    set_config('statement_timeout', :statement_timeout, true),
    -- A chunk is few keys, whatever statistics make the planner expect: each is looked up by index, and nothing is worth compiling.
    set_config('enable_seqscan', 'off', true),
    set_config('jit', 'off', true)
