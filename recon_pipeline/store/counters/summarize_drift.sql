-- What a run's comparison found, by billing month and kind.
-- Invariant: each key is counted once. Transitions are those of a repair to the settled sum, without held and doubtful keys.
-- Index: the primary key of recon.counter_drift, by run.
-- Binds: run_id text
select
    recon.billing_month(period_start) as partition,
    kind,
    count(*) as keys,
    count(*) filter (where outcome = 'held') as held,
    count(*) filter (where outcome = 'doubtful') as doubtful,
    count(*) filter (where is_approved) as approved,
    count(*) filter (where kind = 'orphan' and (is_approved or outcome in ('held', 'doubtful'))) as excused_orphans,
    count(*) filter (where over_quota_transition and coalesce(outcome not in ('held', 'doubtful'), true)) as over_quota_transitions,
    count(*) filter (where under_quota_transition and coalesce(outcome not in ('held', 'doubtful'), true)) as under_quota_transitions,
    coalesce(sum(greatest(settled_sum - coalesce(usage_count, 0), 0)), 0) as usage_missed,
    coalesce(sum(greatest(coalesce(usage_count, 0) - visible_sum, 0)), 0) as usage_excess
from (
    select
        *,
        -- What left the log and an approval lets through.
        units_left is not null
        and outcome is null
        and exists (select from recon.reconciliation_run as run where run.run_id = :run_id and run.approved_reason is not null) as is_approved
    from recon.counter_drift
    where run_id = :run_id
) as drift
group by 1, 2
order by 1, 2
