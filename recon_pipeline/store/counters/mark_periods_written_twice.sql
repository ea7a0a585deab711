-- Finds the drifted keys of a run whose period is written in two ways, among the run's drift and the counters, and makes them doubtful.
-- Invariant: in the transaction of the comparison, after it. A key that is doubtful for another reason stays so. A missing key whose bounds have more
-- digits of a second than the counters keep is doubtful too: its counter would be one of another period.
-- Index: the primary key of recon.counter_drift; the unique key of the counters, for each drifted key.
-- Uses: periods_written_twice
-- Binds: end_digits integer, run_id text, start_digits integer
with drifted as materialized (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end, kind
    from recon.counter_drift
    where run_id = :run_id
),
near as materialized (
    select ordinal, gateway_name, usage_type, gateway_customer_id, period_start, period_end
    from drifted
    union all
    select null, drifted.gateway_name, drifted.usage_type, drifted.gateway_customer_id, counter.period_start, counter.period_end
    from drifted
    cross join lateral (
        select period_start, period_end
        from billing_usage_counters
        where gateway_name = drifted.gateway_name
            and gateway_customer_id = drifted.gateway_customer_id
            and usage_type = drifted.usage_type
            and period_start >= drifted.period_start - interval '1 second'
            and period_start <= drifted.period_start + interval '1 second'
            and (period_start, period_end) <> (drifted.period_start, drifted.period_end)
        limit 100
    ) as counter
),
doubtful as materialized (
    select ordinal, min(doubt) as doubt
    from (
        {periods_written_twice}
        union all
        select
            ordinal,
            format('the counters cannot keep its period exactly, %s to %s: their columns keep fewer digits of a second', period_start, period_end)
        from drifted
        where kind = 'missing'
            and (
                round(extract(epoch from period_start), :start_digits) <> extract(epoch from period_start)
                or round(extract(epoch from period_end), :end_digits) <> extract(epoch from period_end)
            )
    ) as found
    group by ordinal
)
update recon.counter_drift as drift
set outcome = 'doubtful', error = doubtful.doubt
from doubtful
where drift.run_id = :run_id
    and drift.ordinal = doubtful.ordinal
    and drift.outcome is null
