-- The distinct keys that other runs repaired in the last 24 hours without an approval, as numbers.
-- Invariant: repairs that were undone do not count, and an undo is no repair. No run takes a day: one that began before yesterday has
-- ended.
-- Index: recon.reconciliation_run by start, then recon.counter_repair by run, which `offset 0` enforces whatever the statistics say.
-- Uses: in_extent_of_scope
-- Binds: run_id text
with repaired as (
    select
        {in_extent_of_scope} as is_of_extent,
        bool_or(kind = 'orphan') as is_orphan,
        bool_or(over_quota_transition) as is_over_quota
    from recon.reconciliation_run as run
    cross join lateral (
        select *
        from recon.counter_repair as repair
        where repair.run_id = run.run_id
            and repair.repaired_at > now() - interval '24 hours'
            and not exists (select from recon.counter_repair as undone where undone.undoes = repair.id)
        offset 0
    ) as repair
    where run.started_at > now() - interval '48 hours'
        and run.run_id <> :run_id
        and run.approved_reason is null
    group by gateway_name, usage_type, gateway_customer_id, period_start, period_end
)
select
    count(*) as repairs,
    count(*) filter (where is_over_quota) as over_quota_transitions,
    count(*) filter (where is_of_extent) as repairs_of_extent,
    count(*) filter (where is_of_extent and is_orphan) as orphans_of_extent
from repaired
