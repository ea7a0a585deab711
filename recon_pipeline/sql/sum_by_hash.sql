-- Makes the statements of a transaction sum large parts of the log in one pass, by a hash of the keys.
-- Invariant: ends with the transaction. Where the planner expects the hash to outgrow work_mem it reads the log by an index on periods and sorts
-- each of them, which takes three times as long as a pass that spills.
select
    set_config('enable_sort', 'off', true),
    set_config('enable_incremental_sort', 'off', true),
    -- The sort at the end, which there has to be, looks costly enough to compile it.
    set_config('jit', 'off', true)
