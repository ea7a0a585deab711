"""Rules that many statements apply become functions: what a bigint holds, settled, the billing month, one event.

Invariant: each is a single expression without settings of its own. Postgres puts such a function into the statement
that calls it, so query plans stay those of the expression. `recon_pipeline_tests/store/test_functions.py` checks that.
"""

from alembic import op

revision = "0014"
down_revision = "0013"

_FUNCTIONS = """
create function recon.fits_bigint(amount numeric) returns boolean
language sql immutable as $fits$
    select amount between -9223372036854775808 and 9223372036854775807 and amount = trunc(amount)
$fits$;
comment on function recon.fits_bigint is
    'Whether a counter can hold an event sum: a whole number within the limits of bigint.';

create function recon.fits_index(customer text) returns boolean
language sql immutable as $fits$
    select octet_length(customer) <= 1000
$fits$;
comment on function recon.fits_index is 'Whether the name of a customer is short enough for an index.';

create function recon.billing_month(instant timestamptz) returns text
language sql stable as $month$
    select to_char(instant at time zone 'UTC', 'YYYY-MM')
$month$;
comment on function recon.billing_month is 'The UTC month of a time, YYYY-MM: of a period, that of its start.';

create function recon.is_settled(written_by xid, settled_below xid8) returns boolean
language sql stable as $settled$
    select age(written_by) < 0 or age(written_by) > age(settled_below::xid)
$settled$;
comment on function recon.is_settled is
    'Whether the transaction that wrote a row had ended at a horizon; null, which means no, without a horizon. '
    'The age of a row that was frozen long ago may be negative: it is old.';

create function recon.are_one_event(
    identity text[], same_usage_type boolean, same_customer boolean, same_period_start boolean, same_period_end boolean,
    same_event_timestamp boolean, same_created_at boolean
) returns boolean
language sql immutable as $one_event$
    select ('usage_type' <> all(identity) or same_usage_type)
        and ('gateway_customer_id' <> all(identity) or same_customer)
        and ('period_start' <> all(identity) or same_period_start)
        and ('period_end' <> all(identity) or same_period_end)
        and ('event_timestamp' <> all(identity) or same_event_timestamp)
        and ('created_at' <> all(identity) or same_created_at)
$one_event$;
comment on function recon.are_one_event is
    'Whether two rows of one gateway and request id are one event: they agree in every column of the identity.';
"""


def upgrade() -> None:
    """Create the functions."""
    op.execute(_FUNCTIONS)


def downgrade() -> None:
    """Refuse, as version 0001 does."""
    raise NotImplementedError("drop schema recon by hand if the ledger of repairs may be lost")
