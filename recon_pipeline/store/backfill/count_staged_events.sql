-- What became of the staged events, by billing month.
-- Index: none; a chunk is read as a whole.
-- After: create_staged_events, classify_staged_events
select outcome, partition, count(*) as events
from pg_temp.classified_event
group by outcome, partition
