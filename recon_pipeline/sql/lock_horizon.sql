-- Locks the horizon of one metered usage, so that one run at a time moves it, and looks for keys to recompute.
-- Invariant: held to the end of the transaction that adds to the aggregates.
-- Index: the primary key of recon.horizon; recon.invalidated_key by usage.
select
    horizon::text,
    exists (
        select from recon.invalidated_key where gateway_name = :gateway_name and usage_type = :usage_type
    ) as has_noted_keys
from recon.horizon
where gateway_name = :gateway_name and usage_type = :usage_type
for update
