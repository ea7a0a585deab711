"""Which billing months are compared with a meter, and what it had of one when that was sealed."""

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import COUNTERS
from recon_pipeline.store.postgres.statements import labelled

# The billing months with a period that is open or ended lately.
# Index: none: one pass over the counters.
# Uses: in_scope.
# Binds: end timestamptz, recent_days integer, start timestamptz
_MONTHS = labelled(
    "months_to_compare",
    """
    select distinct recon.billing_month(date_trunc('month', period_start, 'UTC')) as partition
    from billing_usage_counters
    where {in_scope}
        and period_start >= :start
        and period_start < :end
        and period_end > now() - make_interval(days => :recent_days)
    order by partition
    """,
)
# What the meter had of a month when it was sealed, as far as it was compared; nothing if it never was.
# Index: the primary key of recon.parity_key.
# Uses: in_months.
# Binds: seal_id bigint
_RECORD_AT_SEAL = labelled(
    "record_parity_at_seal",
    """
    insert into recon.sealed_parity (
        seal_id, key_count, compared_count, differing_count, log_units, provider_units, oldest_comparison
    )
    select
        :seal_id, count(*), count(compared_at), count(*) filter (where difference_count > 0),
        sum(compared_log_units), sum(provider_units), min(compared_at)
    from recon.parity_key
    where {in_months}
    having count(provider_units) > 0
    """,
)


def months_to_compare(connection: Connection, extent: Extent, *, recent_days: int) -> tuple[BillingMonth, ...]:
    """The months with a period that is open or ended lately; in a transaction of READ COMMITTED."""
    see_every_row(connection, COUNTERS)
    rows = connection.execute(
        _MONTHS,
        {
            "start": extent.start,
            "end": extent.end,
            "gateway_names": [usage.gateway_name for usage in extent.scope],
            "usage_types": [usage.usage_type for usage in extent.scope],
            "recent_days": recent_days,
        },
    )
    return tuple(BillingMonth.parse(key) for key in rows.scalars())


def record_at_seal(connection: Connection, usage: MeteredUsage, month: BillingMonth, *, seal_id: int) -> None:
    """Keep what the meter had of a month with its seal; in the transaction of the seal."""
    parameters = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type, "seal_id": seal_id}
    connection.execute(_RECORD_AT_SEAL, {**parameters, "start": month.start, "end": month.end})
