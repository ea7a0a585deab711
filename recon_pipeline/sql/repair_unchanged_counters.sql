-- Locks the counters of a chunk that are still the very row version that the comparison saw, sets them to the comparison's sum, and
-- accounts for it. Every other key is left to the statements that sum its events anew.
-- Invariant: no increment is lost, although lock and write are one statement. xmin names the transaction that wrote a row version; it had
-- ended when the comparison looked, so no later version of the key has the same one. A counter that somebody holds is skipped. Where an
-- increment commits between this statement's snapshot and the lock, Postgres locks the newest version and evaluates the conditions
-- again on that (EvalPlanQual; PostgreSQL manual, 13.2.1): xmin is another one then, and the row is left out. Nothing is summed
-- here that would not be evaluated again. A row that is kept is thus the version of both snapshots, and nobody changes it before we commit:
-- `updated` finds it where it was locked. Every increment in it was committed, with its event, before the comparison's snapshot.
-- Counter and ledger row commit together; the ledger refuses a second row for the same drifted key.
-- Index: the primary key of recon.counter_drift, by range; the unique key of the counters (an index scan, which also prunes the page, so that
-- most updates find room in it and touch no index; a scan by ctid would not).
with locked as materialized (
    select
        drift.id, drift.ordinal, drift.gateway_name, drift.usage_type, drift.gateway_customer_id,
        drift.period_start, drift.period_end,
        drift.kind, drift.settled_sum, drift.usage_limit, drift.outcome,
        counter.usage_count,
        counter.tableoid as counter_table,
        counter.ctid as counter_tid
    from recon.counter_drift as drift
    join billing_usage_counters as counter
        using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    where drift.run_id = :run_id
        and drift.ordinal between :first and :last
        and drift.settled_sum = trunc(drift.settled_sum)
        and drift.outcome is distinct from 'held'
        and counter.xmin = drift.counter_xid
    order by drift.ordinal
    for no key update of counter skip locked
),
updated as (
    update billing_usage_counters as counter
    set usage_count = locked.settled_sum, updated_at = clock_timestamp()
    from locked
    where counter.tableoid = locked.counter_table
        and counter.ctid = locked.counter_tid
    returning locked.*, counter.usage_count as usage_count_after
),
odd as materialized (
    -- Few or none: a value that a trigger changed, and what an earlier attempt of this step had left undone.
    select ordinal, settled_sum, usage_count_after
    from updated
    where usage_count_after <> settled_sum or outcome is not null
),
noted as (
    update recon.counter_drift as drift
    set
        outcome = case when odd.usage_count_after <> odd.settled_sum then 'failed' end,
        error = case
            when odd.usage_count_after <> odd.settled_sum
                then 'the table changed the repaired value ' || odd.settled_sum || ' to ' || odd.usage_count_after
        end
    from odd
    where drift.run_id = :run_id
        -- Said twice: whatever the planner expects, it looks at the chunk and not at all keys of the run.
        and drift.ordinal between :first and :last
        and drift.ordinal = odd.ordinal
)
insert into recon.counter_repair (
    run_id, drift_id, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    kind, usage_count_before, usage_count_after, usage_limit
)
select
    :run_id, id, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
    kind, usage_count, usage_count_after, usage_limit
from updated
