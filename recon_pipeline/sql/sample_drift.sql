-- The drifted keys of a run that a person should see first: transitions, then the largest differences.
-- Invariant: values are text as Postgres prints them, so that no value is too odd to be shown.
-- Index: the primary key of recon.counter_drift, by run.
select
    gateway_customer_id, usage_type, period_start::text as period_start, kind,
    usage_count::text as usage_count, settled_sum::text as event_sum, usage_limit::text as usage_limit,
    case when over_quota_transition then 'over' when under_quota_transition then 'under' else '' end as quota_transition,
    coalesce(outcome, 'found') as outcome,
    coalesce(error, '') as error
from recon.counter_drift
where run_id = :run_id
    and (cast(:outcomes as text[]) is null or outcome = any(:outcomes))
order by
    (over_quota_transition or under_quota_transition) desc nulls last,
    abs(settled_sum - coalesce(usage_count, 0)) desc,
    ordinal
limit :sample_rows
