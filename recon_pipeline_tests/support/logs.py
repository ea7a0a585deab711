"""Logs that are made otherwise than `recon init --with-billing-tables` makes them."""


def partitioned_log(column: str) -> str:
    """SQL that puts an empty log without partitions and constraints in place of the one that is there.

    Args:
        column: By whose ranges it is partitioned.
    """
    return f"""
    drop table billing_usage_events cascade;
    create table billing_usage_events (
        id uuid not null default gen_random_uuid(),
        gateway_name text not null,
        gateway_customer_id text not null,
        usage_type text not null,
        request_id text not null,
        quantity integer not null default 1,
        period_start timestamptz not null,
        period_end timestamptz not null,
        event_timestamp timestamptz default now(),
        metadata jsonb default '{{}}',
        created_at timestamptz not null default now()
    ) partition by range ({column});
    """
