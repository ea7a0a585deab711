-- The drifted keys of a run that a person should see first: transitions, then the largest differences.
-- Invariant: values are text as Postgres prints them, so that no value is too odd to be shown.
-- Index: the primary key of recon.counter_drift, by run; recon.counter_repair by drift.
-- Binds: outcomes text[], run_id text, sample_rows bigint
select
    gateway_customer_id, usage_type, period_start::text as period_start, period_end::text as period_end, kind,
    usage_count::text as usage_count, settled_sum::text as event_sum,
    (settled_sum - coalesce(usage_count, 0))::text as difference,
    usage_limit::text as usage_limit,
    case when over_quota_transition then 'over' when under_quota_transition then 'under' else '' end as quota_transition,
    coalesce(outcome, 'found') as outcome,
    coalesce(error, '') as error
from (
    select
        drift.gateway_customer_id, drift.usage_type, drift.period_start, drift.period_end, drift.ordinal, drift.kind,
        drift.usage_count, drift.settled_sum, drift.usage_limit,
        drift.over_quota_transition, drift.under_quota_transition,
        case when drift.outcome is null and repair.drift_id is not null then 'repaired' else drift.outcome end as outcome,
        drift.error
    from recon.counter_drift as drift
    left join recon.counter_repair as repair on repair.drift_id = drift.id
    where drift.run_id = :run_id
) as drift
where cast(:outcomes as text[]) is null or outcome = any(:outcomes)
order by
    (over_quota_transition or under_quota_transition) desc nulls last,
    abs(settled_sum - coalesce(usage_count, 0)) desc,
    ordinal
limit :sample_rows
