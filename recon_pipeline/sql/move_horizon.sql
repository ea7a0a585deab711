-- Moves the horizon of one metered usage, and with it the mark of every month that had nothing new to verify; takes away notes of keys that
-- nobody aggregates, which would pile up.
-- Invariant: in the transaction that added the events below it to the aggregates. A usage without a horizon has no aggregates, and is built
-- from a snapshot that sees what was noted.
-- Index: the primary keys of recon.horizon and recon.usage_month.
with moved as (
    update recon.horizon
    set horizon = cast(:horizon as xid8), run_id = :run_id, moved_at = now()
    where gateway_name = :gateway_name and usage_type = :usage_type
),
of_nobody as (
    delete from recon.invalidated_key as noted
    where noted.gateway_name is not null
        and not exists (
            select from recon.horizon as horizon
            where horizon.gateway_name = noted.gateway_name and horizon.usage_type = noted.usage_type
        )
)
update recon.usage_month
set verified_below = cast(:horizon as xid8)
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and verified_below = cast(:since as xid8)
    and partition <> all(:touched)
