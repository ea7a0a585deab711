-- The customers of one metered usage who would get the most usage.
-- Index: none; the preview is read as a whole.
-- After: create_staged_events, declare_identity, preview_staged_events
-- Binds: gateway_name text, rows bigint, usage_type text
select gateway_customer_id, partition, count(*) as events, sum(quantity) as units
from pg_temp.preview_event
where outcome = 'inserted' and gateway_name = :gateway_name and usage_type = :usage_type
group by gateway_customer_id, partition
order by units desc, gateway_customer_id, partition
limit :rows
