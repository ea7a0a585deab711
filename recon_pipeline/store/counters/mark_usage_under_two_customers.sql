-- Makes two drifted keys of a run doubtful where one has a counter with as much too much as the other's lacks, and the
-- other's counter is gone since the last verification, or an earlier run has made it doubtful for this.
-- Invariant: in the transaction of the comparison, after it. Events in flight may or may not be in a counter, so that a
-- key may have two amounts. A key that was open when its month was verified had no counter that matched. A counter whose
-- events left or changed is none of the two: perhaps they moved, and that is asked about as events that left. A key that
-- is doubtful already keeps its reason, and has one doubt more. Sealed keys follow their seal.
-- Index: the primary key of recon.counter_drift, by run; recon.open_key, recon.invalidated_key and recon.usage_month are
-- small; the log by customer, for each missing counter of such an amount. Hashes, never a loop over a loop.
-- Binds: doubt text, run_id text
with open as materialized (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end, doubts, events_left, units_left
    from recon.open_key
),
noted as materialized (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from recon.invalidated_key
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end) is not null
),
half as materialized (
    select distinct
        drift.ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, possible.units,
        drift.kind in ('over', 'orphan') as is_counter, drift.kind = 'missing' and open.doubts is null as is_gone,
        coalesce(cast(:doubt as text) = any(open.doubts), false) as is_remembered
    from recon.counter_drift as drift
    left join open using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    cross join lateral (
        values (abs(coalesce(usage_count, 0) - settled_sum)), (abs(coalesce(usage_count, 0) - visible_sum))
    ) as possible (units)
    where drift.run_id = :run_id
        and drift.seal_id is null
        and (
            drift.kind in ('under', 'missing')
            or coalesce(open.events_left, 0) = 0
            and coalesce(open.units_left, 0) = 0
            and (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            not in (select * from noted)
        )
),
alike as materialized (
    select gateway_name, usage_type, period_start, period_end, units
    from half
    group by gateway_name, usage_type, period_start, period_end, units
    having bool_or(is_counter) and bool_or(not is_counter and (is_gone or is_remembered))
),
verified as materialized (
    select gateway_name, usage_type, partition, verified_at
    from recon.usage_month
),
moved as materialized (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, units
    from half
    where not is_counter
        and (gateway_name, usage_type, period_start, period_end, units) in (select * from alike)
        and (
            is_remembered
            or is_gone
            and exists (
                select from billing_usage_events as event
                where event.gateway_name = half.gateway_name
                    and event.gateway_customer_id = half.gateway_customer_id
                    and event.usage_type = half.usage_type
                    and event.period_start = half.period_start
                    and event.period_end = half.period_end
                    and event.created_at < (
                        select verified_at
                        from verified
                        where (gateway_name, usage_type, partition)
                            = (half.gateway_name, half.usage_type, recon.billing_month(half.period_start))
                    )
            )
        )
),
couple as materialized (
    select
        gateway_name, usage_type, period_start, period_end, units,
        min(half.gateway_customer_id) filter (where half.is_counter) as counted_for,
        min(half.gateway_customer_id) filter (where not half.is_counter) as used_by
    from half
    where (gateway_name, usage_type, period_start, period_end, units)
        in (select gateway_name, usage_type, period_start, period_end, units from moved)
        and (is_counter or ordinal in (select ordinal from moved))
    group by gateway_name, usage_type, period_start, period_end, units
),
doubtful as materialized (
    select
        cast(:run_id as text) as run_id, half.ordinal,
        min(
            format(
                'one usage under two customers: a counter of %s, and events of %s with the %s units that '
                'it has too much; move the counter or the events, or take these units from the counter',
                case when is_counter then half.gateway_customer_id else counted_for end,
                case when is_counter then used_by else half.gateway_customer_id end,
                units
            )
        ) as reason
    from half
    join couple using (gateway_name, usage_type, period_start, period_end, units)
    where half.is_counter or half.ordinal in (select ordinal from moved)
    group by half.ordinal
)
update recon.counter_drift as drift
set
    outcome = 'doubtful',
    error = coalesce(drift.error, doubtful.reason),
    doubts = drift.doubts || array[cast(:doubt as text)]
from doubtful
-- The run comes from `doubtful`, as in doubt_events_left.
where (drift.run_id, drift.ordinal) = (doubtful.run_id, doubtful.ordinal)
