-- How many repairs of a run can be undone, and how many of them the next run would make again since their key is not held.
-- Invariant: a repair is undone once; one that is undone already is counted apart, and so is one of a sealed counter, which stays.
-- Index: recon.counter_repair by run, and by what it undoes; recon.hold, those that are not released.
-- Binds: customers text[], every_customer boolean, undone_run_id text
with stand_in as materialized (
    select * from recon.stand_in
)
select
    count(*) filter (where not is_undone and not is_sealed) as undoable,
    count(*) filter (where is_undone) as already_undone,
    count(*) filter (where not is_undone and is_sealed) as sealed,
    coalesce(sum(usage_delta) filter (where not is_undone and not is_sealed), 0) as usage_delta,
    count(*) filter (where not is_undone and not is_sealed and not is_held) as not_held,
    coalesce((array_agg(distinct gateway_customer_id) filter (where not is_undone and not is_sealed and not is_held))[1:5], '{}') as not_held_customers
from (
    select
        repair.gateway_customer_id,
        repair.usage_delta,
        exists (
            select from stand_in
            where seal_id > 0
                and (gateway_name, usage_type, partition) = (repair.gateway_name, repair.usage_type, recon.billing_month(repair.period_start))
                and covers_until >= repair.period_end
        ) as is_sealed,
        exists (select from recon.counter_repair as undo where undo.undoes = repair.id) as is_undone,
        exists (
            select
            from recon.hold
            where released_at is null
                and until > clock_timestamp()
                and gateway_customer_id = repair.gateway_customer_id
                and coalesce(
                    partition = recon.billing_month(repair.period_start), true
                )
        ) as is_held
    from recon.counter_repair as repair
    where repair.run_id = :undone_run_id
        and (:every_customer or repair.gateway_customer_id = any(:customers))
) as repair
