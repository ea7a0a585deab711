-- The product's promise, asked of the log itself: the keys, of an extent or of those that are given, where counter and log differ.
-- Invariant: written another way than the comparison (rows of both sides summed per key, no join between them), so that one cannot hide the
-- other's mistake; a counter between the settled sum and the visible sum is in sync.
-- Index: as of compare_counters.
-- Uses: events_of_extent_or_given, counters_of_extent_or_given
-- Binds: customers_given text[], gateway_name text, most_keys integer, period_ends_given text[], period_starts_given text[]
-- Binds: run_id text, settle_seconds integer, usage_type text
with given as materialized (
    select gateway_customer_id, period_start::timestamptz as period_start, period_end::timestamptz as period_end
    from unnest(cast(:customers_given as text[]), cast(:period_starts_given as text[]), cast(:period_ends_given as text[]))
        as key (gateway_customer_id, period_start, period_end)
)
select
    mismatch.*,
    count(*) over () as mismatch_count,
    count(*) filter (where mismatch.outcome = 'deferred') over () as deferred_count,
    count(*) filter (where mismatch.outcome = 'held') over () as held_count,
    count(*) filter (where mismatch.outcome = 'untouched') over () as untouched_count
from (
    select
        key.gateway_customer_id,
        key.period_start::text as period_start,
        key.period_end::text as period_end,
        key.usage_count::text as usage_count,
        key.visible_sum::text as event_sum,
        coalesce(drift.outcome, '') as outcome,
        coalesce(drift.error, '') as error
    from (
        select
            gateway_customer_id, period_start, period_end,
            sum(counted) as usage_count,
            coalesce(sum(visible), 0) as visible_sum
        from (
            select gateway_customer_id, period_start, period_end, null::bigint as counted, visible, settled
            from (
                select
                    gateway_customer_id, period_start, period_end,
                    quantity::numeric as visible,
                    case when :settle_seconds = 0 or is_settled then quantity::numeric else 0 end as settled
                from ({events_of_extent_or_given}) as countable
            ) as event
            union all
            select gateway_customer_id, period_start, period_end, usage_count, 0, 0
            from ({counters_of_extent_or_given}) as counter
        ) as side
        group by gateway_customer_id, period_start, period_end
        having coalesce(sum(counted), 0) < sum(settled)
            or coalesce(sum(counted), 0) > sum(visible)
    ) as key
    -- A full join never loops through all of the one for each of the other, whatever old statistics make the planner expect.
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
order by mismatch.outcome in ('deferred', 'held', 'untouched'), mismatch.gateway_customer_id, mismatch.period_start
limit :most_keys + 1
