-- The keys, of an extent or of those that are given, whose counter differs from the log: the check of what a run promises.
-- Invariant: written in another way than the comparison (rows of both sides summed per key, no join between them), so that neither can hide
-- the other's mistake. A counter is in sync between the least and the most that it may be while increments are in flight. If a repair still
-- has to add what a backfill inserted, the counter is in sync only where a person has added it. Whether these units are settled is written
-- out, as in compare_counters.
-- Index: as of compare_counters.
-- Uses: compared_events = events_of_extent_or_given | sealed_sums_and_events, counters_of_extent_or_given
-- Binds: customers_given text[], gateway_name text, most_keys integer, period_ends_given text[], period_starts_given text[]
-- Binds: run_id text, settle_seconds integer, settled_below xid8, usage_type text
with given as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end
    from unnest(cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]))
        as key (gateway_customer_id, period_start, period_end)
)
select
    mismatch.*,
    count(*) over of_month as mismatch_count,
    count(*) filter (where mismatch.outcome = 'deferred') over of_month as deferred_count,
    count(*) filter (where mismatch.outcome = 'held') over of_month as held_count,
    count(*) filter (where mismatch.outcome = 'doubtful') over of_month as doubtful_count,
    count(*) filter (where mismatch.outcome = 'untouched') over of_month as untouched_count
from (
    select
        recon.billing_month(key.period_start) as partition,
        key.gateway_customer_id,
        key.period_start::text as period_start,
        key.period_end::text as period_end,
        key.usage_count::text as usage_count,
        key.visible_sum::text as event_sum,
        coalesce(drift.outcome, '') as outcome,
        coalesce(drift.error, '') as error
    from (
        select gateway_customer_id, period_start, period_end, counted as usage_count, visible as visible_sum
        from (
            select
                gateway_customer_id, period_start, period_end,
                sum(counted) as counted,
                coalesce(sum(visible), 0) as visible,
                coalesce(sum(settled), 0) as settled,
                sum(uncounted) as uncounted,
                sum(uncounted_usage) as uncounted_usage,
                sum(uncounted_credits) as uncounted_credits
            from (
                select
                    gateway_customer_id, period_start, period_end,
                    null::bigint as counted, most_units::numeric as visible, least_units::numeric as settled,
                    0 as uncounted, 0 as uncounted_usage, 0 as uncounted_credits, true as is_in_extent
                from ({compared_events}) as event
                union all
                select gateway_customer_id, period_start, period_end, usage_count, 0, 0, 0, 0, 0, true
                from ({counters_of_extent_or_given}) as counter
                union all
                -- Units in flight are part of the least or the most that the counter may be, as if their increments could still come.
                select
                    gateway_customer_id, period_start, period_end, null, 0, 0, units,
                    case when (inserted_xid < cast(:settled_below as xid8)) is not true then units - credit_units else 0 end,
                    case when (inserted_xid < cast(:settled_below as xid8)) is not true then credit_units else 0 end,
                    false
                from recon.uncounted_backfill
                where :settle_seconds > 0 and gateway_name = :gateway_name and usage_type = :usage_type
            ) as side
            group by gateway_customer_id, period_start, period_end
            having bool_or(is_in_extent)
        ) as summed
        cross join lateral (
            select
                least(settled + uncounted_usage, greatest(visible + uncounted_credits, settled), visible) as least_sum,
                greatest(visible + uncounted_credits, least(settled + uncounted_usage, visible), settled) as most_sum
        ) as bound
        where coalesce(counted, 0) < case when uncounted > 0 then most_sum else least_sum end
            or coalesce(counted, 0) > case when uncounted < 0 then least_sum else most_sum end
    ) as key
    -- A full join never becomes a nested loop, whatever old statistics the planner has.
    full join (
        select
            found.gateway_customer_id, found.period_start, found.period_end,
            case
                when found.outcome is not null then found.outcome
                when repair.drift_id is not null then 'repaired'
                else 'untouched'
            end as outcome,
            found.error
        from recon.counter_drift as found
        left join recon.counter_repair as repair on repair.drift_id = found.id
        where found.run_id = :run_id
            and found.gateway_name = :gateway_name
            and found.usage_type = :usage_type
    ) as drift using (gateway_customer_id, period_start, period_end)
    where case when key.visible_sum is not null then true end
) as mismatch
window of_month as (partition by mismatch.partition)
-- One of each month first, so that the counts of none are cut off.
order by
    row_number() over (
        of_month
        order by mismatch.outcome in ('deferred', 'doubtful', 'held', 'untouched'), mismatch.gateway_customer_id, mismatch.period_start
    ) > 1,
    mismatch.outcome in ('deferred', 'doubtful', 'held', 'untouched'),
    mismatch.gateway_customer_id,
    mismatch.period_start
limit :most_keys + 1
