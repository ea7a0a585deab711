-- Part of other statements: the rows of an extent, in any table: those of its months, and of its customers or of all.
-- Index: as {in_months} says.
-- Uses: in_months
-- Binds: customers text[], every_customer boolean
{in_months}
and (:every_customer or gateway_customer_id = any(:customers))
