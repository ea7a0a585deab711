-- Makes the statements of a transaction look up each key by itself, by index.
-- Invariant: ends with the transaction. Statistics are of earlier runs; with them the planner may read all counters for every chunk.
select
    set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true),
    set_config('enable_seqscan', 'off', true),
    -- What has to be read in full all the same looks costly enough to compile it.
    set_config('jit', 'off', true)
