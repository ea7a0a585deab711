-- What became of the staged events, by billing month.
-- Index: as {classified} says.
-- Uses: classified = classified_staged_events
-- After: create_staged_events
select outcome, partition, count(*) as events
from ({classified}) as classified
group by outcome, partition
