-- What became of the staged events, by billing month.
-- Index: as {judged} says.
select outcome, partition, count(*) as events
from ({judged}) as judged
group by outcome, partition
