"""From which billing month on a metered usage is accepted: months that enter the comparison later are asked about."""

from alembic import op

revision = "0015"
down_revision = "0014"

_ACCEPTED_MONTHS = """
alter table recon.accepted_usage add first_partition text;
comment on column recon.accepted_usage.first_partition is
    'The first billing month that is accepted: repairs in months before it wait for an approval. Null: every month is.';
-- What runs have reconciled, down to the first month of any of them, was accepted by those who ran them, and is not
-- asked about again; months before that nobody has seen compared. Where no run is on record, nobody knows which months
-- were meant, and none is asked about. Months that are declared to be no longer in the log are no longer accepted.
update recon.accepted_usage as accepted
set first_partition = greatest(
    (
        select min(first_partition)
        from recon.reconciliation_run
        where outcome in ('clean', 'not_clean', 'paused')
            and customers is null
            and accepted.gateway_name || ':' || accepted.usage_type = any(scope)
    ),
    (select before_partition from recon.retention order by id desc limit 1)
);
"""


def upgrade() -> None:
    """Add the column."""
    op.execute(_ACCEPTED_MONTHS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
