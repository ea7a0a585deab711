-- Part of other statements: the events that count, where the log itself refuses a repeated request id.
-- Invariant: an invalid event (quantity null, not positive or not finite; a period that does not end
-- after it begins; no customer) is never summed.
-- Index: none of its own; the predicates of the statement around it reach the table.
select event.*
from billing_usage_events as event
where event.quantity > 0
    and event.period_end > event.period_start
    and event.gateway_customer_id is not null
    and (not :quantity_is_numeric or event.quantity::text not in ('NaN', 'Infinity'))
