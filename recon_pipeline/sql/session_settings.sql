-- How a transaction of ours behaves: in UTC, bounded waits, memory enough to aggregate the log in one pass.
-- Invariant: all of it ends with the transaction, so that a pooled connection is given back as it was.
select
    set_config('TimeZone', 'UTC', true),
    set_config('DateStyle', 'ISO', true),
    set_config('work_mem', :work_mem, true),
    set_config('lock_timeout', :lock_timeout, true),
    set_config('statement_timeout', :statement_timeout, true)
