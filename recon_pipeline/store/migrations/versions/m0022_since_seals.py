"""What came after a month was sealed is remembered until sums of the month are written: an idle tick asks nothing."""

from alembic import op

revision = "0022"
down_revision = "0021"

_SINCE_SEAL = """
alter table recon.usage_month
    add column summed_xid xid8 not null default pg_current_xact_id(),
    add column since_seal jsonb;
comment on column recon.usage_month.summed_xid is
    'The transaction that wrote sums of the month last, or found that they stay as they are.';
comment on column recon.usage_month.since_seal is
    'What came after the month was sealed, as these sums say it, and of which seal; null: nobody has asked since.';
"""


def upgrade() -> None:
    """Add the columns; nothing is remembered yet."""
    op.execute(_SINCE_SEAL)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
