-- The staged events that conflict with the log or that it refused, each with the reason.
-- Index: none; a chunk is read as a whole.
-- After: create_staged_events, classify_staged_events
select ordinal, outcome, differing, refusal, stays
from pg_temp.classified_event
where outcome in ('conflict', 'refused')
order by ordinal
