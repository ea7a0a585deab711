-- Creates the table in which the events of a chunk wait to be inserted. It ends with the transaction.
-- Invariant: every value fits its column here, whatever the types of the log's columns are. Ids are made before the insert, so they show
-- what was inserted. Metadata is text: most rows of a repeated backfill are duplicates, whose metadata nobody reads.
create temporary table staged_event (
    ordinal bigint not null,
    id uuid not null,
    gateway_name text not null,
    gateway_customer_id text not null,
    usage_type text not null,
    request_id text not null,
    quantity numeric not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    event_timestamp timestamptz not null,
    metadata text not null,
    is_first boolean not null,
    refusal text
) on commit drop
