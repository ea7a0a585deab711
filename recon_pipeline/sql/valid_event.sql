-- Part of other statements: the condition for an event to count; null where it cannot be told, which is no.
-- Invariant: an invalid event (quantity null, not positive or not finite; a period that does not end
-- after it begins; no customer) is never summed.
event.quantity > 0
and event.period_end > event.period_start
and event.gateway_customer_id is not null
and (not :quantity_is_numeric or event.quantity::text not in ('NaN', 'Infinity'))
