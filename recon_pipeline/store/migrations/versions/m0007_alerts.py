"""Alerts: what fails, what is to be told of it, and to whom that has been delivered."""

from alembic import op

revision = "0007"
down_revision = "0006"

_ALERTS = """
create table recon.alert_watch (
    is_known boolean primary key default true check (is_known),
    watching_since timestamptz not null default clock_timestamp(),
    paused_at timestamptz,
    runs_noticed_until timestamptz not null
);
comment on table recon.alert_watch is
    'One row: up to where runs were noticed, and when the pipeline was last seen paused. Whoever notices locks it.';

create table recon.alert_run (
    run_id text primary key,
    ended_at timestamptz not null
);
create index alert_run_by_end on recon.alert_run (ended_at);
comment on table recon.alert_run is 'Runs of Dagster''s that ended and were noticed: each is noticed once.';

create table recon.alert_state (
    subject text primary key,
    severity text not null check (severity in ('error', 'warn')),
    partitions text[] not null,
    details text not null,
    failing_since timestamptz not null,
    told_at timestamptz not null
);
comment on table recon.alert_state is 'What fails now; a subject that passes again has no row.';

create table recon.alert_outbox (
    id bigint generated always as identity primary key,
    noticed_at timestamptz not null default clock_timestamp(),
    severity text not null check (severity in ('error', 'warn')),
    is_resolved boolean not null,
    title text not null,
    body text not null
);
comment on table recon.alert_outbox is
    'Every message, written in the transaction that noticed what it tells of, before anything is sent.';

create table recon.alert_delivery (
    alert_id bigint not null references recon.alert_outbox on delete cascade,
    target text not null,
    target_name text not null,
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default clock_timestamp(),
    claimed_until timestamptz,
    delivered_at timestamptz,
    error text,
    primary key (alert_id, target)
);
create index alert_undelivered on recon.alert_delivery (target, alert_id) where delivered_at is null;
comment on column recon.alert_delivery.target is 'A fingerprint of the address, which holds secrets and is not stored.';
"""


def upgrade() -> None:
    """Create the tables."""
    op.execute(_ALERTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
