-- Undoes repairs whose counters this transaction has locked: writes the inverse of each change as a new row of the ledger.
-- Invariant: runs as a statement after the one that took the locks, so that no counter in its snapshot can change, and no other transaction
-- can undo the same repair (it would need the lock). Increments since the repair stay, since only its delta is subtracted. No counter falls
-- below 0, nor, where credits had it below, under its value before the repair. Counter and ledger row commit together.
-- A sealed counter is left as its seal says.
-- Index: the primary key of recon.counter_repair, and what it undoes; the counters by their unique key.
-- Binds: counter_ids uuid[], ids bigint[], run_id text
with stand_in as materialized (
    select * from recon.stand_in
),
locked as materialized (
    select
        repair.*,
        counter.id as counter_id,
        counter.usage_count,
        exists (select from recon.counter_repair as undo where undo.undoes = repair.id) as is_undone,
        exists (
            select from stand_in
            where seal_id > 0
                and (gateway_name, usage_type, partition) = (repair.gateway_name, repair.usage_type, recon.billing_month(repair.period_start))
                and covers_until >= repair.period_end
        ) as is_sealed
    from unnest(cast(:ids as bigint[]), cast(:counter_ids as uuid[])) as given (repair_id, counter_id)
    join recon.counter_repair as repair on repair.id = given.repair_id
    join billing_usage_counters as counter
        on counter.id = given.counter_id
        and (counter.gateway_name, counter.usage_type, counter.gateway_customer_id, counter.period_start, counter.period_end)
        = (repair.gateway_name, repair.usage_type, repair.gateway_customer_id, repair.period_start, repair.period_end)
),
updated as (
    update billing_usage_counters as counter
    set usage_count = locked.usage_count - locked.usage_delta, updated_at = clock_timestamp()
    from locked
    where counter.id = locked.counter_id
        and (counter.gateway_name, counter.usage_type, counter.gateway_customer_id, counter.period_start, counter.period_end)
        = (locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end)
        and not locked.is_undone
        and not locked.is_sealed
        and (locked.usage_delta < 0 or locked.usage_count - locked.usage_delta >= least(locked.usage_count_before, 0))
    returning locked.id, counter.usage_count
),
ledgered as (
    insert into recon.counter_repair (
        run_id, undoes, gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        kind, usage_count_before, usage_count_after, usage_limit
    )
    select
        :run_id, locked.id, locked.gateway_name, locked.usage_type, locked.gateway_customer_id,
        locked.period_start, locked.period_end,
        'undo', locked.usage_count, updated.usage_count, locked.usage_limit
    from locked
    join updated using (id)
    order by locked.id
)
select
    locked.id as repair_id,
    locked.gateway_customer_id,
    locked.period_start::text as period_start,
    locked.usage_count::text as usage_count,
    locked.usage_delta::text as usage_delta,
    case
        when updated.id is not null then 'undone'
        when locked.is_undone then 'already_undone'
        when locked.is_sealed then 'sealed'
        when locked.usage_delta > 0 and locked.usage_count - locked.usage_delta < least(locked.usage_count_before, 0) then 'below_zero'
        else 'failed'
    end as outcome
from locked
left join updated using (id)
