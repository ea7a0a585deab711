-- Creates the list of counters that no mishap has touched yet, each with its customer's limit.
-- Invariant: a mishap that picks a counter removes it here, so that mishaps never cancel each other. The table ends with the transaction.
create temporary table demo_untouched_counter (
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    usage_count bigint not null,
    usage_limit bigint not null,
    primary key (gateway_customer_id, period_start, period_end)
) on commit drop
