"""The sums of a lake are copied to where they are kept: the table between holds nothing any more."""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Drop the table of staged sums."""
    op.execute("drop table recon.lake_staged_sum")


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
