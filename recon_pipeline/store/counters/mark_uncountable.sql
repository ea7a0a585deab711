-- Records that a key of a run has no counter to lock, although it was offered a row.
-- Invariant: an orphan that is gone needs no repair; any other key is a failure, since its usage is counted nowhere.
-- Index: the primary key of recon.counter_drift.
-- Binds: ordinals bigint[], run_id text
update recon.counter_drift
set
    outcome = case when kind = 'orphan' then 'in_sync' else 'failed' end,
    error = case
        when kind = 'orphan' then 'the orphan was deleted meanwhile'
        else 'the table did not take a counter for this key (a trigger, a rule or another unique key)'
    end
where run_id = :run_id
    and ordinal = any(:ordinals)
    and outcome is null
