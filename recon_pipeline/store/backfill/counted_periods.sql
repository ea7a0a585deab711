-- The periods of counters of some customers and usage types that contain a time between the first and the last of their events.
-- Invariant: no event gets a period without an end, or one that ends in a year of five digits; known_periods returns such periods.
-- Index: the unique key of counters; one lookup for each customer and usage type.
-- Binds: customers text[], firsts timestamptz[], gateway_names text[], lasts timestamptz[], usage_types text[]
select asked.ordinal, counter.period_start, counter.period_end
from unnest(
    cast(:gateway_names as text[]), cast(:customers as text[]), cast(:usage_types as text[]),
    cast(:firsts as timestamptz[]), cast(:lasts as timestamptz[])
) with ordinality as asked (gateway_name, gateway_customer_id, usage_type, first, last, ordinal)
join billing_usage_counters as counter
    on counter.gateway_name = asked.gateway_name
    and counter.gateway_customer_id = asked.gateway_customer_id
    and counter.usage_type = asked.usage_type
    and counter.period_start <= asked.last
    and counter.period_end > asked.first
where counter.period_start < counter.period_end
    and counter.period_start >= '0001-01-02Z'
    and counter.period_end < '9999-01-01Z'
