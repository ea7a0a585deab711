-- The first billing table that has rows.
-- Invariant: the demo begins only if this returns no row, so it never mixes into existing data.
-- Index: none; reads at most one row of each table.
select table_name
from (values
    ('billing_usage_events', exists (select from billing_usage_events)),
    ('billing_usage_counters', exists (select from billing_usage_counters)),
    ('billing_subscriptions', exists (select from billing_subscriptions))
) as billing (table_name, has_rows)
where has_rows
limit 1
