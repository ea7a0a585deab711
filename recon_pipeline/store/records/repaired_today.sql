-- The distinct keys that other runs repaired in the last 24 hours without an approval, as numbers.
-- Invariant: repairs that were undone do not count, and an undo is no repair. No run takes a day: one that began before yesterday has
-- ended. The extent is written out, as an expression of each key and over several usages at once.
-- Index: recon.reconciliation_run by start, then recon.counter_repair by run, which `offset 0` enforces whatever the statistics say.
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_names text[], run_id text
-- Binds: start timestamptz, usage_types text[]
with repaired as (
    select
        (gateway_name, usage_type) in (select * from unnest(cast(:gateway_names as text[]), cast(:usage_types as text[])))
            and period_start >= :start
            and period_start < :end
            and (:every_customer or gateway_customer_id = any(:customers)) as is_of_extent,
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
