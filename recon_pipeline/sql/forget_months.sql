-- Forgets what is stored of a range of months of one metered usage, before they are built.
-- Invariant: the caller holds the row of recon.horizon.
-- Index: the primary keys of recon.usage_aggregate and recon.usage_month.
with forgotten as (
    delete from recon.usage_month
    where gateway_name = :gateway_name and usage_type = :usage_type and partition = any(:partitions)
)
delete from recon.usage_aggregate
where gateway_name = :gateway_name
    and usage_type = :usage_type
    and period_start >= :start
    and period_start < :end
