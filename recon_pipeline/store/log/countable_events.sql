-- Part of other statements: the events that count, if the log itself refuses a second event of one identity: all valid ones.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Uses: classified_events
select event.*
from ({classified_events}) as event
where event.is_valid
