-- Who would get the most usage, of one metered usage.
-- Index: as {judged} says.
select gateway_customer_id, partition, count(*) as events, sum(quantity) as units
from ({judged}) as judged
where outcome = 'inserted' and gateway_name = :gateway_name and usage_type = :usage_type
group by gateway_customer_id, partition
order by units desc, gateway_customer_id, partition
limit :rows
