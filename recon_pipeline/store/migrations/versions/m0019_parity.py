"""What the log says was sent to a provider's meters, what comparisons with them found, and what they said at a seal."""

from alembic import op

revision = "0019"
down_revision = "0018"

_PARITY = """
create table recon.parity_key (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    provider_customer text,
    provider_customer_count bigint not null,
    log_units numeric not null,
    settled_units numeric not null,
    event_count bigint not null,
    elsewhere_count bigint not null,
    elsewhere_units numeric not null,
    first_noted_at timestamptz not null,
    noted_at timestamptz not null,
    compared_at timestamptz,
    compared_until timestamptz,
    compared_log_units numeric,
    provider_units numeric,
    difference_count bigint not null default 0,
    error text,
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
);
comment on table recon.parity_key is
    'What the log says was sent to a meter for each key, by the timestamps as sent, and the last comparison with it.';
comment on column recon.parity_key.settled_units is 'Without events that are younger than RECON_STRIPE_LAG_MINUTES.';
comment on column recon.parity_key.elsewhere_count is
    'Events whose timestamp lies in the period and whose label is another one.';
comment on column recon.parity_key.noted_at is 'The beginning of the comparison that summed the log.';
comment on column recon.parity_key.provider_units is
    'What the meter had in the window of the period, up to compared_until.';
comment on column recon.parity_key.error is 'Why the provider refused the customer; null if it did not.';

create table recon.parity_difference (
    id bigint generated always as identity primary key,
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    window_start timestamptz not null,
    window_end timestamptz not null,
    kind text not null check (
        kind in (
            'not_comparable', 'lagging', 'rejected', 'misplaced', 'missing', 'expired', 'over_reported', 'finalized'
        )
    ),
    log_units numeric not null,
    provider_units numeric not null,
    evidence text not null,
    foreign key (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        references recon.parity_key on delete cascade
);
create index parity_difference_by_key
    on recon.parity_difference (gateway_name, usage_type, gateway_customer_id, period_start, period_end);
comment on table recon.parity_difference is
    'Where log and meter differ, as the last comparison of the key found; its class with the evidence.';

create table recon.sealed_parity (
    seal_id bigint primary key,
    key_count bigint not null,
    compared_count bigint not null,
    differing_count bigint not null,
    log_units numeric not null,
    provider_units numeric not null,
    oldest_comparison timestamptz
);
create trigger sealed_parity_is_append_only
    before update or delete or truncate on recon.sealed_parity
    for each statement execute function recon.refuse_change();
comment on table recon.sealed_parity is
    'Append only: what a provider''s meter had of a month when it was sealed, as far as it was compared.';
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(_PARITY)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
