-- Part of other statements: events, each with the verdict whether it may count.
-- Index: as {which_events} says.
-- Uses: valid_event, which_events = *
select event.*, coalesce({valid_event}, false) as is_valid
from billing_usage_events as event
where {which_events}
