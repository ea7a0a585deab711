"""What a backfill inserted and no repair has counted yet, so that increments in flight cannot be taken for it."""

from alembic import op

revision = "0010"
down_revision = "0009"

_UNCOUNTED_BACKFILL = """
create table recon.uncounted_backfill (
    gateway_name text not null,
    usage_type text not null,
    gateway_customer_id text not null,
    period_start timestamptz not null,
    period_end timestamptz not null,
    inserted_xid xid8 not null default pg_current_xact_id(),
    units numeric not null,
    primary key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, inserted_xid)
);
comment on table recon.uncounted_backfill is
    'Units of backfilled events that no repair has counted yet, by key and chunk; only with RECON_SETTLE_SECONDS.';
comment on column recon.uncounted_backfill.inserted_xid is
    'The transaction that inserted the events, and this row with them.';
"""


def upgrade() -> None:
    """Add the table; what was backfilled before is counted once it has settled."""
    op.execute(_UNCOUNTED_BACKFILL)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
