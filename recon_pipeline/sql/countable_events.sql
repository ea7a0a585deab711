-- Part of other statements: the events that count, where the log itself refuses a repeated request id.
-- Index: none of its own; the predicates of the statement around it reach the table.
select event.*
from billing_usage_events as event
where {valid_event}
