-- Forgets every aggregate and horizon, since they are not of this log any more; they are built anew.
-- Invariant: the caller holds every row of recon.horizon.
with forgotten_aggregate as (delete from recon.usage_aggregate),
forgotten_month as (delete from recon.usage_month),
forgotten_key as (delete from recon.invalidated_key)
delete from recon.horizon
