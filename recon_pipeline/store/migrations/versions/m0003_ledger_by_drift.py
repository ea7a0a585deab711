"""The ledger says which drifted key each repair belongs to, so that a repaired key is written once: in the ledger."""

from alembic import op

revision = "0003"
down_revision = "0002"

_LEDGER_BY_DRIFT = """
alter table recon.counter_drift add id bigint generated always as identity (cache 1000);
alter table recon.counter_drift reset (fillfactor); -- its rows are hardly ever updated any more
comment on column recon.counter_drift.outcome is
    'Why the key was not repaired. A repaired key has a row in recon.counter_repair and no outcome.';

alter table recon.counter_repair add drift_id bigint;
comment on column recon.counter_repair.drift_id is
    'The row of recon.counter_drift that was repaired; null for a change that no comparison asked for.';
create unique index counter_repair_by_drift on recon.counter_repair (drift_id);

drop index recon.counter_repair_by_customer; -- a customer has few repairs, and they are quickly sorted
create index counter_repair_by_customer on recon.counter_repair (gateway_customer_id);
"""


def upgrade() -> None:
    """Add the link, which is null in what was repaired before, and give the ledger lighter indexes."""
    op.execute(_LEDGER_BY_DRIFT)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
