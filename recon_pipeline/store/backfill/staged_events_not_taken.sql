-- The staged events that are in conflict with the log or were refused by it, each with what there is to say.
-- Index: as {classified} says.
-- Uses: classified = classified_staged_events
-- After: create_staged_events
select ordinal, outcome, differing, refusal, stays
from ({classified}) as classified
where outcome in ('conflict', 'refused')
order by ordinal
