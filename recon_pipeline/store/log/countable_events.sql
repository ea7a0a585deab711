-- Part of other statements: the events that count, where the log itself refuses a repeated request id.
-- event_xid is the transaction that wrote the row, whatever the application wrote into its columns.
-- Index: none of its own; the predicates of the statement around it reach the table.
-- Uses: valid_event
select event.*, event.xmin as event_xid
from billing_usage_events as event
where {valid_event}
