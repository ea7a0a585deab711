-- Part of other statements: the events of an extent.
-- Index: (usage_type, period_start, period_end) for a few months, a sequential scan for all of them.
-- Binds: customers text[], end timestamptz, every_customer boolean, gateway_name text, start timestamptz
-- Binds: usage_type text
event.gateway_name = :gateway_name
and event.usage_type = :usage_type
and event.period_start >= :start
and event.period_start < :end
and (:every_customer or event.gateway_customer_id = any(:customers))
