-- The application's three tables and its recorder, for a new project or a demo (`recon init --with-billing-tables`).
-- Invariant: an event and its increment commit together, and a request id is counted once per gateway.
-- Every statement leaves an existing object as it is. Run without parameters.

create table if not exists billing_usage_events (
    id uuid primary key default gen_random_uuid(),
    gateway_name text not null,
    gateway_customer_id text not null,
    usage_type text not null,
    request_id text not null,
    quantity integer not null default 1 check (quantity > 0),
    period_start timestamptz not null,
    period_end timestamptz not null,
    event_timestamp timestamptz default now(),
    metadata jsonb default '{}',
    created_at timestamptz default now(),
    check (period_end > period_start),
    unique (gateway_name, request_id)
);
create index if not exists billing_usage_events_customer
    on billing_usage_events (gateway_customer_id, event_timestamp desc);
create index if not exists billing_usage_events_period
    on billing_usage_events (usage_type, period_start, period_end);

create table if not exists billing_usage_counters (
    id uuid primary key default gen_random_uuid(),
    gateway_name text not null,
    gateway_customer_id text not null,
    usage_type text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    usage_count bigint not null default 0 check (usage_count >= 0),
    updated_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    unique (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
);
create index if not exists billing_usage_counters_period
    on billing_usage_counters (period_start, gateway_customer_id);

create table if not exists billing_subscriptions (
    id uuid primary key default gen_random_uuid(),
    gateway_name text not null,
    gateway_customer_id text not null,
    status text not null,
    current_period_start timestamptz not null,
    current_period_end timestamptz not null
);
create index if not exists billing_subscriptions_customer
    on billing_subscriptions (gateway_name, gateway_customer_id);

create or replace function record_billing_usage_event(
    p_gateway_name text,
    p_gateway_customer_id text,
    p_usage_type text,
    p_request_id text,
    p_period_start timestamptz,
    p_period_end timestamptz,
    p_quantity integer default 1,
    p_event_timestamp timestamptz default now(),
    p_metadata jsonb default '{}'
) returns boolean
language plpgsql
as $recorder$
begin
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id,
        quantity, period_start, period_end, event_timestamp, metadata
    ) values (
        p_gateway_name, p_gateway_customer_id, p_usage_type, p_request_id,
        p_quantity, p_period_start, p_period_end, p_event_timestamp, p_metadata
    )
    on conflict do nothing;

    -- A request id seen before is a retry: it was counted when it first arrived.
    if not found then
        return false;
    end if;

    insert into billing_usage_counters as counter (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    ) values (
        p_gateway_name, p_gateway_customer_id, p_usage_type, p_period_start, p_period_end, p_quantity
    )
    on conflict (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
    do update set usage_count = counter.usage_count + excluded.usage_count, updated_at = now();
    return true;
end
$recorder$;
