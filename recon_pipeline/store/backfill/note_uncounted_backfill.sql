-- Notes the units that a chunk has inserted, by key: no application counts them, and no repair has counted them yet.
-- Invariant: runs in the transaction that inserted the events, so that neither is seen without the other.
-- Index: the unique key on request ids, or an index on request_id; one lookup for each event.
-- After: create_staged_events
insert into recon.uncounted_backfill (gateway_name, usage_type, gateway_customer_id, period_start, period_end, units, credit_units)
select event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end,
    sum(event.quantity), coalesce(sum(event.quantity) filter (where event.quantity < 0), 0)
from pg_temp.staged_event as staged
cross join lateral (
    select gateway_name, usage_type, gateway_customer_id, period_start, period_end, quantity
    from billing_usage_events
    where gateway_name = staged.gateway_name and request_id = staged.request_id and id = staged.id
    limit 1
) as event
group by event.gateway_name, event.usage_type, event.gateway_customer_id, event.period_start, event.period_end
