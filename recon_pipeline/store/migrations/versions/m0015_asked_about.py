"""What is remembered so that it is asked about: from which month on a usage is accepted, and why a key was doubtful."""

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

_DOUBTS = """
alter table recon.open_key add doubt text;
comment on column recon.open_key.doubt is
    'What about the log, and under which declaration, made the key doubtful since its counter last matched.';
-- By the reasons that runs have recorded.
update recon.open_key
set doubt = case
    when starts_with(error, 'one period written in two ways') then 'periods'
    when error ~ 'events of negative quantity: set RECON_NEGATIVE' then 'negative quantities'
    -- Whether a credit was among them they do not say: it may have been.
    else 'identity ' || substring(error from 'has the same (.*) as one of its events') || ', credits'
end
where reason = 'doubtful';
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(_ACCEPTED_MONTHS)
    op.execute(_DOUBTS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
