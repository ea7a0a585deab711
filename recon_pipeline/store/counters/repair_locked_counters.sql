-- Sums the events of keys whose counters this transaction has locked, sets the counters that differ, and accounts for it.
-- Invariant: runs as a statement after the one that took the locks: its snapshot sees every event whose increment is in the locked counter, and no
-- counter in it can change. What is written is what the log's own rows add up to in this statement, whatever the comparison or the
-- aggregates said. Counter, ledger row and outcome commit together or not at all. A repaired key is in the ledger; an outcome is
-- written only for one that was not.
-- Keys with a sum and keys updated are locked ones, so the full joins are left joins; but a full join never loops through all of the one for each
-- of the other, whatever statistics make the planner expect. A counter is found by id and key: nothing makes sure that ids are unique.
-- Index: as {locked_sums} says; the counters by their unique key and recon.counter_drift by primary key.
-- Uses: locked_sums = locked_sums | locked_sum_from_horizon
-- Binds: counter_ids uuid[], ordinals bigint[], run_id text
with locked as materialized (
    select
        drift.id as drift_id,
        drift.ordinal, drift.gateway_name, drift.usage_type, drift.gateway_customer_id,
        drift.period_start, drift.period_end, drift.usage_limit, drift.outcome,
        counter.id as counter_id,
        counter.usage_count,
        -- A row version written by this very transaction is the one that create_missing_counters inserted.
        counter.xmin = pg_current_xact_id()::xid as created
    from unnest(cast(:ordinals as bigint[]), cast(:counter_ids as uuid[])) as given (ordinal, counter_id)
    -- Limit 1, of what there is once: a row for each key is then expected whatever the statistics say, which are of other runs.
    cross join lateral (
        select * from recon.counter_drift where run_id = :run_id and ordinal = given.ordinal limit 1
    ) as drift
    cross join lateral (
        select id, usage_count, xmin
        from billing_usage_counters
        where id = given.counter_id
            and (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            = (drift.gateway_name, drift.usage_type, drift.gateway_customer_id, drift.period_start, drift.period_end)
        limit 1
    ) as counter
),
event_sum as materialized (
    {locked_sums}
),
target as (
    select
        locked.*,
        event_sum.visible is null as without_events,
        -- The nearest value that may be right: an increment of an event in flight is never taken away before it came.
        case
            when locked.usage_count > coalesce(event_sum.visible, 0) then coalesce(event_sum.visible, 0)
            when locked.usage_count >= coalesce(event_sum.settled, 0) then locked.usage_count
            else coalesce(event_sum.settled, 0)
        end as right_count
    from locked
    full join event_sum
        using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
),
updated as (
    update billing_usage_counters as counter
    set usage_count = target.right_count, updated_at = clock_timestamp()
    from target
    where counter.id = target.counter_id
        and (counter.gateway_name, counter.usage_type, counter.gateway_customer_id, counter.period_start, counter.period_end)
        = (target.gateway_name, target.usage_type, target.gateway_customer_id, target.period_start, target.period_end)
        and target.right_count <> target.usage_count
        and target.right_count = trunc(target.right_count)
        and target.right_count <= 9223372036854775807
    returning target.ordinal, counter.usage_count
),
ledgered as (
    insert into recon.counter_repair (
        run_id, drift_id, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        kind, usage_count_before, usage_count_after, usage_limit
    )
    select
        :run_id, target.drift_id, target.gateway_name, target.usage_type, target.gateway_customer_id,
        target.period_start, target.period_end,
        case
            when target.created then 'missing'
            when target.without_events then 'orphan'
            when target.usage_count < target.right_count then 'under'
            else 'over'
        end,
        case when not target.created then target.usage_count end,
        coalesce(updated.usage_count, target.usage_count),
        target.usage_limit
    from target
    full join updated using (ordinal)
    where updated.ordinal is not null or target.created
    order by target.ordinal
),
verdict as (
    select
        ordinal, target.outcome as outcome_before,
        case
            when updated.usage_count = target.right_count then null
            when target.right_count = target.usage_count then case when not target.created then 'in_sync' end
            else 'failed'
        end as outcome,
        case
            when target.usage_count is null
                then 'its usage_count is null, which no increment changes: set it to 0, the next run does the rest'
            when target.right_count <> trunc(target.right_count)
                then 'the event sum ' || target.right_count || ' is not a whole number'
            when target.right_count > 9223372036854775807
                then 'the event sum ' || left(target.right_count::text, 40) || ' is more than a bigint holds'
            when updated.usage_count is null and target.right_count <> target.usage_count
                then 'the table suppressed the update of this counter (a trigger or a rule)'
            when updated.usage_count <> target.right_count
                then 'the table changed the repaired value ' || target.right_count || ' to ' || updated.usage_count
        end as error
    from target
    full join updated using (ordinal)
),
-- Few or none: whatever the planner makes of the join with them, it is not a loop over a loop.
odd as materialized (
    select ordinal, outcome, error from verdict where outcome is distinct from outcome_before
)
update recon.counter_drift as drift
set outcome = odd.outcome, error = odd.error
from odd
where drift.run_id = :run_id
    and drift.ordinal = odd.ordinal
    -- Said twice, so that the rows are found by index: a chunk is few of them.
    and drift.ordinal = any(:ordinals)
