-- What would become of the events of a whole source, by billing month.
-- Index: as {judged} says.
select outcome, partition, count(*) as events, sum(quantity) as units, count(distinct gateway_customer_id) as customers
from ({judged}) as judged
group by outcome, partition
