-- Finds the suspects of an extent: the keys that changed since the last verification, and whose counter lies outside the range that the
-- aggregates and the newest events allow. A suspect is a reason to read the log, and nothing more.
-- Changed are: keys with a young counter; keys with an event after those that were verified, or with deleted or updated events; open keys;
-- the keys that this run has found drifted; keys with backfilled events that no repair has counted.
-- Invariant: aggregates, events and counters are of one snapshot, :horizon included. Only changed keys are summed, each with all its parts.
-- Each key is looked up in a hash, or by a unique index: whatever the planner expects, there is no nested loop over a scan. The result has
-- one row for each suspect, at most :most_keys + 1, or one row without a suspect. Each row says how many keys changed, and how many of
-- these have an aggregate and a counter other than 0. Where a seal or the lake stands in the place of the log, its sum stands for the aggregate, and no event is new.
-- Index: ingest_xid; the unique key of the counters and the primary key of recon.usage_aggregate, for each changed key; the other tables
-- are small.
-- Uses: bounded_events, in_months
-- Binds: customers_changed text[], gateway_name text, horizon xid8, most_keys integer, period_ends_changed text[]
-- Binds: period_starts_changed text[], run_id text, seal_ids bigint[], sealed_months timestamptz[], sealed_until timestamptz[], usage_type text
-- Binds: verified_below xid8
with changed as materialized (
    select gateway_customer_id, period_start, period_end, bool_or(is_noted) as is_noted
    from (
        select gateway_customer_id, period_start::timestamptz, period_end::timestamptz, false as is_noted
        from unnest(cast(:customers_changed as text[]), cast(:period_starts_changed as text[]), cast(:period_ends_changed as text[]))
            as young (gateway_customer_id, period_start, period_end)
        union all
        select gateway_customer_id, period_start, period_end, false
        from billing_usage_events
        where ingest_xid >= cast(:verified_below as xid8)
            -- A case, so that the planner reads them by ingest_xid alone.
            and case
                when {in_months}
                    and recon.fits_index(gateway_customer_id)
                    and period_end is not null
                    then true
            end
        union all
        select gateway_customer_id, period_start, period_end, true
        from recon.invalidated_key
        where {in_months}
            and recon.fits_index(gateway_customer_id)
        union all
        select gateway_customer_id, period_start, period_end, false
        from recon.open_key
        where {in_months}
        union all
        -- Keys that the run found drifted are compared with the log again, as noted keys are, whatever their sums.
        select gateway_customer_id, period_start, period_end, true
        from recon.counter_drift
        where run_id = :run_id
            and gateway_name = :gateway_name
            and usage_type = :usage_type
        union all
        -- So are keys with backfilled events that no repair has counted yet: events in flight may hide them.
        select gateway_customer_id, period_start, period_end, true
        from recon.uncounted_backfill
        where {in_months}
    ) as key
    group by gateway_customer_id, period_start, period_end
),
looked_at as materialized (
    select
        gateway_customer_id, period_start, period_end,
        bool_or(is_noted) as is_noted,
        coalesce(max(counted), 0) as counted,
        coalesce(sum(aggregated), 0) as aggregated,
        coalesce(sum(recent_least), 0) as recent_least,
        coalesce(sum(recent_most), 0) as recent_most
    from (
        select
            gateway_customer_id, period_start, period_end,
            true as is_changed, is_noted,
            null::bigint as counted, null::numeric as aggregated, null::numeric as recent_least, null::numeric as recent_most
        from changed
        union all
        select changed.gateway_customer_id, changed.period_start, changed.period_end, false, false, counter.usage_count, null, null, null
        from changed
        cross join lateral (
            select usage_count
            from billing_usage_counters
            where gateway_name = :gateway_name
                and usage_type = :usage_type
                and gateway_customer_id = changed.gateway_customer_id
                and period_start = changed.period_start
                and period_end = changed.period_end
            limit 1
        ) as counter
        union all
        select changed.gateway_customer_id, changed.period_start, changed.period_end, false, false, null, aggregate.usage_count, null, null
        from changed
        cross join lateral (
            select usage_count
            from recon.usage_aggregate
            where gateway_name = :gateway_name
                and usage_type = :usage_type
                and gateway_customer_id = changed.gateway_customer_id
                and period_start = changed.period_start
                and period_end = changed.period_end
                and recon.follows_log(period_start, period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
            limit 1
        ) as aggregate
        union all
        select changed.gateway_customer_id, changed.period_start, changed.period_end, false, false, null, sealed.usage_count, null, null
        from changed
        cross join lateral (
            select usage_count
            from recon.stand_in_sum
            where seal_id = any(cast(:seal_ids as bigint[]))
                and gateway_customer_id = changed.gateway_customer_id
                and period_start = changed.period_start
                and period_end = changed.period_end
            limit 1
        ) as sealed
        union all
        select
            countable.gateway_customer_id, countable.period_start, countable.period_end, false, false,
            null, null,
            countable.least_units, countable.most_units
        from ({bounded_events}) as countable
        where countable.ingest_xid >= cast(:horizon as xid8)
            and case
                when {in_months} and recon.follows_log(countable.period_start, countable.period_end, cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[]))
                    then true
            end
    ) as side
    group by gateway_customer_id, period_start, period_end
    having bool_or(is_changed)
),
total as (
    select
        count(*) as changed_count,
        count(*) filter (where aggregated <> 0) as nonzero_aggregates,
        count(*) filter (where counted <> 0) as nonzero_counters
    from looked_at
)
select total.*, suspect.*
from total
left join (
    select
        gateway_customer_id, period_start::text as period_start, period_end::text as period_end,
        (aggregated + recent_most)::text as added_up, is_noted
    from looked_at
    where is_noted
        or counted not between aggregated + recent_least and aggregated + recent_most
    limit :most_keys + 1
) as suspect on true
