-- Recomputes the event sums of keys whose counters this transaction has locked, sets those that differ, and accounts for it.
-- Invariant: runs as a statement after the one that took the locks: its snapshot sees every event whose increment is in the
-- locked counter, and no counter in it can change. Counter, ledger row and outcome commit together or not at all.
-- Index: billing_usage_events by gateway_customer_id, read once per customer of the chunk (the range of periods is kept from
-- the index on periods, whose selectivity cannot be known for it); the counters and recon.counter_drift by primary key.
with locked as materialized (
    select
        drift.ordinal, drift.gateway_name, drift.usage_type, drift.gateway_customer_id,
        drift.period_start, drift.period_end, drift.usage_limit,
        counter.id as counter_id,
        counter.usage_count,
        -- A row version written by this very transaction is the one that create_missing_counters inserted.
        counter.xmin = pg_current_xact_id()::xid as created
    from unnest(cast(:ordinals as bigint[]), cast(:counter_ids as uuid[])) as had (ordinal, counter_id)
    join recon.counter_drift as drift on drift.run_id = :run_id and drift.ordinal = had.ordinal
    join billing_usage_counters as counter on counter.id = had.counter_id
),
event_sum as materialized (
    select
        customer.gateway_name, customer.usage_type, customer.gateway_customer_id,
        sums.period_start, sums.period_end, sums.visible, sums.unsettled
    from (
        select
            gateway_name, usage_type, gateway_customer_id,
            min(period_start) as first_start, max(period_start) as last_start
        from locked
        group by gateway_name, usage_type, gateway_customer_id
    ) as customer
    cross join lateral (
        select
            countable.period_start,
            countable.period_end,
            sum(countable.quantity)::numeric as visible,
            coalesce(sum(countable.quantity) filter (
                where :settle_seconds > 0
                    and countable.created_at
                    between statement_timestamp() - make_interval(secs => :settle_seconds)
                    and statement_timestamp() + make_interval(secs => :settle_seconds)
            ), 0) as unsettled
        from ({countable_events}) as countable
        where countable.gateway_name = customer.gateway_name
            and countable.usage_type = customer.usage_type
            and countable.gateway_customer_id = customer.gateway_customer_id
            and (countable.period_start between customer.first_start and customer.last_start) is true
        group by countable.period_start, countable.period_end
    ) as sums
),
target as (
    select
        locked.*,
        event_sum.visible is null as without_events,
        case
            when locked.usage_count between settled.usage_count and coalesce(event_sum.visible, 0)
                then locked.usage_count
            else settled.usage_count
        end as right_count
    from locked
    left join event_sum
        using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    cross join lateral (
        select coalesce(event_sum.visible - event_sum.unsettled, 0) as usage_count
    ) as settled
),
updated as (
    update billing_usage_counters as counter
    set usage_count = target.right_count, updated_at = clock_timestamp()
    from target
    where counter.id = target.counter_id
        and target.right_count <> target.usage_count
        and target.right_count = trunc(target.right_count)
    returning target.ordinal, counter.usage_count
),
ledgered as (
    insert into recon.counter_repair (
        run_id, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        kind, usage_count_before, usage_count_after, usage_limit
    )
    select
        :run_id, target.gateway_name, target.usage_type, target.gateway_customer_id,
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
    left join updated using (ordinal)
    where updated.ordinal is not null or target.created
    order by target.ordinal
)
update recon.counter_drift as drift
set
    outcome = case
        when updated.usage_count = target.right_count then 'repaired'
        when target.right_count = target.usage_count then case when target.created then 'repaired' else 'in_sync' end
        else 'failed'
    end,
    error = case
        when target.right_count <> trunc(target.right_count)
            then 'the event sum ' || target.right_count || ' is not a whole number'
        when updated.ordinal is null and target.right_count <> target.usage_count
            then 'the table suppressed the update of this counter (a trigger or a rule)'
        when updated.usage_count <> target.right_count
            then 'the table changed the repaired value ' || target.right_count || ' to ' || updated.usage_count
    end
from target
left join updated using (ordinal)
where drift.run_id = :run_id
    and drift.ordinal = target.ordinal
