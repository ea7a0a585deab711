"""A tick that finds nothing changed starts no run: its record names the run whose result it confirms."""

from alembic import op

revision = "0012"
down_revision = "0011"

_CONFIRMS = """
alter table recon.reconciliation_run add confirms_run_id text;
comment on column recon.reconciliation_run.confirms_run_id is
    'Of a tick that started no run, as nothing had changed: the run over the same months whose result it confirms.';
"""


def upgrade() -> None:
    """Add the column; every record so far is of a run."""
    op.execute(_CONFIRMS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
