-- Invariant: the demo begins only where this returns no row: it never mixes into somebody's data.
-- Reads at most one row of each table; uses no index.
select table_name
from (values
    ('billing_usage_events', exists (select from billing_usage_events)),
    ('billing_usage_counters', exists (select from billing_usage_counters)),
    ('billing_subscriptions', exists (select from billing_subscriptions))
) as billing (table_name, has_rows)
where has_rows
limit 1
