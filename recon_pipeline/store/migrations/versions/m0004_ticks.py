"""Aggregates in the order of time, so that what one tick adds lies close together; what was prepared is remembered."""

from alembic import op

revision = "0004"
down_revision = "0003"

_TICKS = """
alter table recon.usage_aggregate
    drop constraint usage_aggregate_pkey,
    add primary key (period_start, gateway_customer_id, period_end, usage_type, gateway_name);
cluster recon.usage_aggregate using usage_aggregate_pkey;

alter table recon.event_log add prepared_catalog text;
comment on column recon.event_log.prepared_catalog is
    'The version of the catalog in which the log was last found to lack nothing for the incremental mode.';
"""


def upgrade() -> None:
    """Give the aggregates another primary key, which rewrites them, and add the column."""
    op.execute(_TICKS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
