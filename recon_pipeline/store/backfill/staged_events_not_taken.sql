-- The staged events that are in conflict with the log or were refused by it, each with what there is to say.
-- Index: as {judged} says.
select ordinal, outcome, differing, refusal, stays
from ({judged}) as judged
where outcome in ('conflict', 'refused')
order by ordinal
