-- Moves the horizon, and with it the mark of every month that had nothing new to verify.
-- Invariant: runs in the transaction that added the events below it to the aggregates.
-- Index: recon.event_log has one row, recon.usage_month one for each month.
-- Binds: gateways_touched text[], horizon xid8, partitions_touched text[], since xid8, usages_touched text[]
with moved as (
    update recon.event_log
    set horizon = cast(:horizon as xid8)
)
update recon.usage_month
set verified_below = cast(:horizon as xid8)
where verified_below = cast(:since as xid8)
    and (gateway_name, usage_type, partition) not in (
        select *
        from unnest(cast(:gateways_touched as text[]), cast(:usages_touched as text[]), cast(:partitions_touched as text[]))
    )
