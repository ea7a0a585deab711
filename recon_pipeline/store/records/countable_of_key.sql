-- Part of the statements that explain one key: its events that count.
-- Index: the events by gateway_customer_id.
-- Uses: countable_events = countable_events | countable_events_deduplicated
-- Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, usage_type text
select countable.*
from ({countable_events}) as countable
where countable.gateway_customer_id = :customer
    and (countable.gateway_name, countable.usage_type, countable.period_start, countable.period_end)
    = (:gateway_name, :usage_type, :period_start, :period_end)
