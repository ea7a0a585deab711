-- Finds the drifted keys of a run whose period is written in two ways, among the run's drift and the counters, and makes them doubtful.
-- Invariant: in the transaction of the comparison, after it. A key that is doubtful already keeps its reason, and has one doubt more. A missing key whose bounds have more
-- digits of a second than the counters keep is doubtful too: its counter would be one of another period.
-- One usage is under two periods where of two drifted keys of one customer and usage type, whose periods overlap, one has a counter that is too high and the other events that
-- its counter lacks, and one of the two has no events or no counter, or had none when an earlier run found so: a counter was moved to another period, and its events were not.
-- Drift is compared with drift alone, and with what earlier runs found so in months that this run does not look at.
-- Sealed keys follow their seal: of them only one whose period is written in another way by a key that follows the log is doubtful.
-- Index: the primary key of recon.counter_drift; the unique key of the counters, for each drifted key; recon.open_key is small. Sorts, never a loop over a loop.
-- Uses: periods_written_twice
-- Binds: end timestamptz, end_digits integer, run_id text, start timestamptz, start_digits integer
with stand_in as materialized (
    select * from recon.stand_in
),
drifted as materialized (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, kind, seal_id is not null as is_sealed
    from recon.counter_drift
    where run_id = :run_id
),
near as (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, is_sealed
    from drifted
),
moved as materialized (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from recon.open_key
    where 'under two periods' = any(doubts)
),
-- Each key as one half: of couples of a counter that is alone, or of events that are.
half as materialized (
    select ordinal, couple, gateway_name, usage_type, gateway_customer_id, period_start, period_end, is_counter
    from (
        select
            *,
            kind in ('orphan', 'over') as is_counter,
            kind in ('orphan', 'missing')
            or (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
            in (select gateway_name, usage_type, gateway_customer_id, period_start, period_end from moved)
                as is_alone
        from drifted
        where not is_sealed
    ) as key
    cross join lateral (values ('counter', is_alone or not is_counter), ('events', is_alone or is_counter)) as possible (couple, is_half)
    where is_half
    union all
    select null, couple, gateway_name, usage_type, gateway_customer_id, period_start, period_end, is_counter
    from moved
    cross join (values ('counter', true), ('counter', false), ('events', true), ('events', false)) as possible (couple, is_counter)
    where period_start < :start or period_start >= :end
),
-- The first of the other side that overlaps: of those that begin no later the one that ends last, else the next.
coupled as (
    select
        ordinal, is_counter, period_start, period_end,
        case when before[1] > period_start then before[2] when after[1] < period_end then after[1] end as other_start,
        case when before[1] > period_start then before[1] when after[1] < period_end then after[2] end as other_end
    from (
        select
            ordinal, is_counter, period_start, period_end,
            case when is_counter then max(array[period_end, period_start]) filter (where not is_counter) over earlier
                else max(array[period_end, period_start]) filter (where is_counter) over earlier
            end as before,
            case when is_counter then min(array[period_start, period_end]) filter (where not is_counter) over later
                else min(array[period_start, period_end]) filter (where is_counter) over later
            end as after
        from half
        where (couple, gateway_name, usage_type, gateway_customer_id) in (
            select couple, gateway_name, usage_type, gateway_customer_id
            from half
            group by couple, gateway_name, usage_type, gateway_customer_id
            having bool_or(is_counter) and not bool_and(is_counter)
        )
        window
            earlier as (partition by couple, gateway_name, usage_type, gateway_customer_id order by period_start),
            later as (partition by couple, gateway_name, usage_type, gateway_customer_id order by period_start desc)
    ) as beside
),
doubtful as materialized (
    select cast(:run_id as text) as run_id, ordinal, min(reason) as reason, array_agg(distinct doubt order by doubt) as doubts
    from (
        select ordinal, doubt as reason, 'written twice' as doubt from ({periods_written_twice}) as twice
        union all
        select
            ordinal,
            format(
                'one usage under two periods: a counter of %s to %s, and events of %s to %s; move the counter or the events, or set the counter to 0',
                case when is_counter then period_start else other_start end, case when is_counter then period_end else other_end end,
                case when is_counter then other_start else period_start end, case when is_counter then other_end else period_end end
            ),
            'under two periods'
        from coupled
        where ordinal is not null
            and other_start is not null
        union all
        select
            ordinal,
            format('the counters cannot keep its period exactly, %s to %s: their columns keep fewer digits of a second', period_start, period_end),
            'digits of a second'
        from drifted
        where kind = 'missing'
            and not is_sealed
            and (
                round(extract(epoch from period_start), :start_digits) <> extract(epoch from period_start)
                or round(extract(epoch from period_end), :end_digits) <> extract(epoch from period_end)
            )
    ) as found
    group by ordinal
)
update recon.counter_drift as drift
set outcome = 'doubtful', error = coalesce(drift.error, doubtful.reason), doubts = drift.doubts || doubtful.doubts
from doubtful
-- The run comes from `doubtful`, as in doubt_events_left.
where (drift.run_id, drift.ordinal) = (doubtful.run_id, doubtful.ordinal)
