-- Sums the events of keys whose counters this transaction has locked, sets the counters that differ, and writes the ledger.
-- Invariant: runs as a statement after the one that took the locks: its snapshot sees every event whose increment is in the locked counter,
-- and no counter in it can change. What is written is the sum of the log's own rows in this statement, whatever the comparison or the
-- aggregates say. Counter, ledger row and outcome commit together or not at all. A repaired key is in the ledger; only other keys get an
-- outcome. Units of a backfill are added to the counter, whatever is in flight, and their note is deleted here, so they are counted once.
-- No counter is lowered below the sum that the comparison saw, and none is lowered that was to be raised: its events left the log or
-- changed meanwhile, and the next run decides. No counter of a key with credits is raised above that sum. So that new events hide nothing
-- of that, a key also waits for the next run if its events were noted since, or if more is known to have left than was let through. The
-- comparison's own notes, of wrong aggregates, are recognised by their transaction. A doubtful key is left alone and returned: the caller
-- rolls back if the key was given a row.
-- In a month in which a seal or a count in the lake stands in the place of the log, its sum is written, and no event makes a key doubtful, but
-- one of a period that follows the log and is written in another way. A key whose month was sealed, reopened or counted anew since the comparison waits for the next run.
-- Keys with a sum and keys updated are locked ones, so the full joins are left joins. A full join never becomes a nested loop, whatever the
-- statistics. A counter is found by id and key, because nothing makes sure that ids are unique. Whether backfilled units are settled is
-- written out, as in compare_counters.
-- Index: as {locked_sums} says; the counters by their unique key; recon.counter_drift and recon.uncounted_backfill by primary key;
-- recon.usage_aggregate by primary key, for keys whose sum has risen; recon.invalidated_key by key, once for all; recon.open_key,
-- recon.sealed_counter and recon.lake_counter by primary key.
-- Uses: locked_sums = locked_sums | locked_sum_from_horizon, periods_written_twice
-- Binds: counter_ids uuid[], ordinals bigint[], reads_notes boolean, refuses_negative boolean, run_id text
-- Binds: settle_seconds integer, settled_below xid8
with stand_in as materialized (
    select * from recon.stand_in
),
locked as materialized (
    select
        drift.id as drift_id,
        drift.ordinal, drift.gateway_name, drift.usage_type, drift.gateway_customer_id,
        drift.period_start, drift.period_end, drift.usage_limit, drift.outcome,
        drift.kind, drift.visible_sum as compared_sum,
        drift.found_by,
        drift.seal_id,
        case
            when drift.seal_id is null
                then exists (
                    select from stand_in
                    where (gateway_name, usage_type, partition) = (drift.gateway_name, drift.usage_type, recon.billing_month(drift.period_start))
                        and covers_until >= drift.period_end
                )
            else drift.seal_id not in (select seal_id from stand_in)
        end as is_seal_changed,
        case when drift.is_lowered then coalesce(drift.units_left, 0) else 0 end as usage_let_through,
        case when drift.is_lowered then 0 else coalesce(drift.units_left, 0) end as credits_let_through,
        counter.id as counter_id,
        counter.usage_count,
        -- A row version written by this very transaction is the one that create_missing_counters inserted.
        counter.xmin = pg_current_xact_id()::xid as created
    from unnest(cast(:ordinals as bigint[]), cast(:counter_ids as uuid[])) as given (ordinal, counter_id)
    -- There is one such row. Limit 1 makes the planner expect that; its statistics are of other runs.
    cross join lateral (
        select *, xmin as found_by, coalesce(usage_count, 0) > visible_sum as is_lowered
        from recon.counter_drift
        where run_id = :run_id and ordinal = given.ordinal
        limit 1
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
log_sum as materialized (
    {locked_sums}
),
sealed as materialized (
    select locked.ordinal, counter.usage_count
    from locked
    cross join lateral (
        select usage_count
        from recon.stand_in_sum
        where seal_id = locked.seal_id
            and gateway_customer_id = locked.gateway_customer_id
            and period_start = locked.period_start
            and period_end = locked.period_end
        limit 1
    ) as counter
),
uncounted as materialized (
    select
        locked.ordinal,
        sum(backfilled.units) as units,
        coalesce(sum(backfilled.units - backfilled.credit_units) filter (where (backfilled.inserted_xid < cast(:settled_below as xid8)) is not true), 0)
            as usage_in_flight,
        coalesce(sum(backfilled.credit_units) filter (where (backfilled.inserted_xid < cast(:settled_below as xid8)) is not true), 0)
            as credits_in_flight
    from recon.uncounted_backfill as backfilled
    join locked using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    where :settle_seconds > 0
    group by locked.ordinal
),
event_sum as (
    select
        locked.ordinal,
        case when locked.seal_id is null then log_sum.visible is null else sealed.usage_count is null end as without_events,
        log_sum.negative_count,
        case when locked.seal_id is null then bound.least_sum else coalesce(sealed.usage_count, 0) end as settled,
        case when locked.seal_id is null then bound.most_sum else coalesce(sealed.usage_count, 0) end as visible
    from locked
    full join log_sum using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    full join uncounted using (ordinal)
    full join sealed using (ordinal)
    cross join lateral recon.counter_bounds(
        coalesce(log_sum.settled, 0), coalesce(log_sum.visible, 0), locked.usage_count,
        uncounted.units, uncounted.usage_in_flight, uncounted.credits_in_flight
    ) as bound
),
-- What left of the locked keys, as far as known.
has_left as materialized (
    select locked.ordinal, open.units_left, open.credits_left
    from locked
    cross join lateral (
        select units_left, credits_left
        from recon.open_key
        where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            = (locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end)
        limit 1
    ) as open
),
-- Of the customers of locked keys; computed only where a counter would change.
noted as materialized (
    select
        gateway_name, usage_type, gateway_customer_id, period_start, period_end,
        credits_left > 0 as is_of_credits,
        xmin <> all(array(select found_by from locked group by found_by)) as is_of_events
    from recon.invalidated_key
    where :reads_notes
        and hashtextextended(gateway_customer_id, 0) = any(array(select hashtextextended(gateway_customer_id, 0) from locked))
        and gateway_customer_id is not null
        and period_end is not null
),
near as materialized (
    select
        key.*,
        exists (
            select from stand_in
            where (gateway_name, usage_type, partition) = (key.gateway_name, key.usage_type, recon.billing_month(key.period_start))
                and covers_until >= key.period_end
        ) as is_sealed
    from (
        select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end
        from locked
        union all
        select null, gateway_name, usage_type, gateway_customer_id, period_start, period_end
        from log_sum
        where visible <> 0 or settled <> 0
    ) as key
),
written_twice as materialized (
    {periods_written_twice}
),
target as (
    select
        locked.*,
        event_sum.without_events,
        since.is_changing,
        case
            when locked.is_seal_changed then 'its month was sealed, reopened or counted anew while the run was under way: the next run decides'
            when :refuses_negative and event_sum.negative_count > 0 and locked.seal_id is null
                then 'has ' || event_sum.negative_count
                    || ' events of negative quantity: set RECON_NEGATIVE_QUANTITIES=sum if they are credits'
            else written_twice.doubt
        end as doubt,
        case
            when :refuses_negative and event_sum.negative_count > 0 and locked.seal_id is null then 'negative quantities'
            when written_twice.doubt is not null then 'written twice'
        end as doubt_name,
        -- The nearest value that may be right, so that no increment of an event in flight is removed before it came.
        case
            when since.is_changing then locked.usage_count
            when locked.usage_count > event_sum.visible then event_sum.visible
            when locked.usage_count >= event_sum.settled then locked.usage_count
            else event_sum.settled
        end as right_count
    from locked
    full join event_sum using (ordinal)
    full join written_twice using (ordinal)
    full join has_left using (ordinal)
    cross join lateral (
        select coalesce(
            case
                when locked.is_seal_changed then true
                when locked.seal_id is not null then false
                when locked.usage_count > event_sum.visible
                    then not locked.created
                        and (
                            event_sum.visible < locked.compared_sum or locked.kind in ('missing', 'under')
                            or has_left.units_left > locked.usage_let_through
                            or (locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end) in (
                                select gateway_name, usage_type, gateway_customer_id, period_start, period_end
                                from noted
                                where is_of_events
                            )
                        )
                when locked.usage_count < event_sum.settled
                    then has_left.credits_left > locked.credits_let_through
                    or (locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end) in (
                        select gateway_name, usage_type, gateway_customer_id, period_start, period_end
                        from noted
                        where is_of_credits
                    )
                    or (
                        event_sum.visible > locked.compared_sum
                        and (
                            has_left.credits_left > 0
                            or exists (
                                select
                                from recon.usage_aggregate
                                where (period_start, gateway_customer_id, period_end, usage_type, gateway_name)
                                    = (locked.period_start, locked.gateway_customer_id, locked.period_end, locked.usage_type, locked.gateway_name)
                                    and credit_units < 0
                            )
                        )
                    )
            end,
            false
        ) as is_changing
    ) as since
    where case when locked.ordinal is not null then true end
),
updated as (
    update billing_usage_counters as counter
    set usage_count = target.right_count, updated_at = clock_timestamp()
    from target
    where counter.id = target.counter_id
        and (counter.gateway_name, counter.usage_type, counter.gateway_customer_id, counter.period_start, counter.period_end)
        = (target.gateway_name, target.usage_type, target.gateway_customer_id, target.period_start, target.period_end)
        and target.right_count <> target.usage_count
        and recon.fits_bigint(target.right_count)
        and target.doubt is null
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
        ordinal, target.outcome as outcome_before, target.created, target.doubt_name,
        case
            when target.is_changing then 'doubtful'
            when updated.usage_count = target.right_count then null
            when target.right_count = target.usage_count then case when not target.created then 'in_sync' end
            when target.doubt is not null and target.usage_count is not null then 'doubtful'
            else 'failed'
        end as outcome,
        case
            when target.is_changing then coalesce(target.doubt, 'its events changed lately: the next run that has summed them decides')
            when target.usage_count is null
                then 'its usage_count is null, which no increment changes: set it to 0, the next run does the rest'
            when target.right_count <> target.usage_count and target.doubt is not null
                then target.doubt
            when target.right_count <> trunc(target.right_count)
                then 'the event sum ' || target.right_count || ' is not a whole number'
            when not recon.fits_bigint(target.right_count)
                then 'the event sum ' || left(target.right_count::text, 40)
                    || case when target.right_count > 0 then ' is more' else ' is less' end || ' than a bigint holds'
            when updated.usage_count is null and target.right_count <> target.usage_count
                then 'the table suppressed the update of this counter (a trigger or a rule)'
            when updated.usage_count <> target.right_count
                then 'the table changed the repaired value ' || target.right_count || ' to ' || updated.usage_count
        end as error
    from target
    full join updated using (ordinal)
),
counted as (
    delete from recon.uncounted_backfill as backfilled
    using locked
    where (
            backfilled.gateway_name, backfilled.usage_type, backfilled.gateway_customer_id,
            backfilled.period_start, backfilled.period_end
        ) = (locked.gateway_name, locked.usage_type, locked.gateway_customer_id, locked.period_start, locked.period_end)
        and locked.ordinal not in (select ordinal from verdict where outcome in ('failed', 'doubtful'))
),
-- Few or none, so any join with them is quick.
odd as materialized (
    select ordinal, outcome, error, created, case when outcome = 'doubtful' then doubt_name end as doubt
    from verdict
    where outcome is distinct from outcome_before
)
update recon.counter_drift as drift
set outcome = odd.outcome, error = odd.error, doubts = recon.and_doubt(drift.doubts, odd.doubt)
from odd
where drift.run_id = :run_id
    and drift.ordinal = odd.ordinal
    -- Repeated, so that the few rows of a chunk are found by index.
    and drift.ordinal = any(:ordinals)
returning odd.ordinal, odd.outcome = 'doubtful' and odd.created as is_created_in_doubt, odd.error, odd.doubt
