-- Gives a metered usage its first horizon, below every transaction: nothing is aggregated yet.
-- Index: the primary key of recon.horizon.
insert into recon.horizon (gateway_name, usage_type, horizon, run_id, moved_at)
values (:gateway_name, :usage_type, '0', :run_id, now())
on conflict (gateway_name, usage_type) do nothing
