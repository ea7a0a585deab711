-- What became of the staged events, by billing month.
-- Index: as {judged} says.
-- Uses: judged = judged_staged_events
-- After: create_staged_events
select outcome, partition, count(*) as events
from ({judged}) as judged
group by outcome, partition
