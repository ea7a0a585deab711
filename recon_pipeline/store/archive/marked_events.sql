-- Part of archived_events: if the log itself refuses a second event of one identity, all valid events count.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Uses: classified_events
select event.*, coalesce(event.is_valid, false) as is_counted
from ({classified_events}) as event
