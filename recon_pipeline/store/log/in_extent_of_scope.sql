-- Part of other statements: the rows of an extent, of all its metered usages, in any table.
-- Index: none of its own.
-- Uses: in_scope
-- Binds: customers text[], end timestamptz, every_customer boolean, start timestamptz
{in_scope}
and period_start >= :start
and period_start < :end
and (:every_customer or gateway_customer_id = any(:customers))
