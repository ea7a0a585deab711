-- Remembers the keys that a run left alone because of a hold, so that every later run looks at them until they match.
-- Invariant: committed with what the run notes as verified, which these keys are not.
-- Index: the primary keys of recon.counter_drift, by run, and of recon.held_key.
insert into recon.held_key as held (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
select gateway_name, usage_type, gateway_customer_id, period_start, period_end
from recon.counter_drift
where run_id = :run_id
    and outcome = 'held'
order by gateway_name, usage_type, gateway_customer_id, period_start, period_end
on conflict (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
do update set noted_xid = excluded.noted_xid
