"""A message says which incidents are open after it and which are over, for services that keep incidents."""

from alembic import op

revision = "0013"
down_revision = "0012"

_INCIDENTS = """
alter table recon.alert_outbox
    add failing text[] not null default '{}',
    add resolved text[] not null default '{}';
update recon.alert_outbox
set
    failing = case when is_resolved then '{}' else array[title] end,
    resolved = case when is_resolved then array[title] else '{}' end;
alter table recon.alert_outbox
    alter failing drop default,
    alter resolved drop default;
comment on column recon.alert_outbox.failing is 'Names of the incidents that are open after the message.';
comment on column recon.alert_outbox.resolved is 'Names of the incidents that are over.';
"""


def upgrade() -> None:
    """Add the columns; a message from before them is an incident of its own."""
    op.execute(_INCIDENTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
