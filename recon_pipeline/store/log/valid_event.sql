-- Part of other statements: the condition for an event to count; null where it cannot be told, which is no.
-- Invariant: an invalid event (quantity null, not positive, not finite or of a size that overflows a sum; a period that does not end after it begins; no customer, or
-- one whose name is too long for an index) is never summed.
-- Binds: quantity_is_numeric boolean
event.quantity > 0
and (not :quantity_is_numeric or event.quantity < 1e1000) -- which NaN and Infinity are not
and event.period_end > event.period_start
and octet_length(event.gateway_customer_id) <= 1000
