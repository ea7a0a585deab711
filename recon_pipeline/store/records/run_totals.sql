-- The totals of all runs since schema recon was made, by outcome.
-- Invariant: only runs that ended count, whose figures are final, so a total never goes down.
-- Index: none, all of recon.reconciliation_run is read: 0.1 s for five years of ticks.
select
    outcome,
    count(*) as runs,
    coalesce(sum(drift_count), 0)::bigint as drift_count,
    coalesce(sum(dedupe_count), 0)::bigint as dedupe_count,
    coalesce(sum(reconcile_failures), 0)::bigint as reconcile_failures,
    -- For a run that repaired nothing, these are what a repair would have done.
    coalesce(sum(over_quota_transitions) filter (where is_repair), 0)::bigint as over_quota_transitions,
    coalesce(sum(under_quota_transitions) filter (where is_repair), 0)::bigint as under_quota_transitions,
    coalesce(sum(rows_repaired), 0)::bigint as rows_repaired
from recon.reconciliation_run
cross join lateral (
    select outcome not in ('compared', 'blocked') and (outcome <> 'put_off' or rows_repaired > 0) as is_repair
) as kind
where outcome <> 'running'
group by outcome
