-- The next repairs of a run to undo, newest first; if several are of one key, the newest is the first.
-- Invariant: each is returned once, since ids only go down.
-- Index: recon.counter_repair by run, and by what it undoes.
-- Binds: before bigint, customers text[], every_customer boolean, rows bigint, undone_run_id text
select
    id,
    row_number() over (
        partition by gateway_name, usage_type, gateway_customer_id, period_start, period_end order by id desc
    ) = 1 as is_first_of_key
from (
    select *
    from recon.counter_repair as repair
    where run_id = :undone_run_id
        and id < :before
        and (:every_customer or gateway_customer_id = any(:customers))
        and not exists (select from recon.counter_repair as undo where undo.undoes = repair.id)
    order by id desc
    limit :rows
) as repair
order by id desc
