"""Which billing months are compared with a meter, and what it had of one when that was sealed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

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
# Uses: in_months, is_one_sum.
# Binds: seal_id bigint
_RECORD_AT_SEAL = labelled(
    "record_parity_at_seal",
    """
    insert into recon.sealed_parity (
        seal_id, key_count, compared_count, differing_count, log_units, provider_units, oldest_comparison
    )
    select
        :seal_id, count(*), count(compared_at), count(*) filter (where difference_count > 0),
        sum(compared_log_units) filter (where is_one_sum), sum(provider_units) filter (where is_one_sum),
        min(compared_at)
    from (
        select
            key.*,
            {is_one_sum} as is_one_sum
        from recon.parity_key as key
        where {in_months}
    ) as key
    having count(provider_units) > 0
    """,
)

# What the meter had of the months that are sealed, when they were.
# Index: none: the tables have a row for each sealed month.
# Uses: in_scope.
# Binds: first text, last text
_SEALED = labelled(
    "sealed_parity",
    """
    select
        usage_type, partition, acted_at as sealed_at,
        sealed.key_count, compared_count, differing_count, log_units, provider_units
    from recon.sealed_parity as sealed
    join recon.sealed_month using (seal_id)
    join (select id as seal_id, acted_at from recon.month_seal) as seal using (seal_id)
    where {in_scope}
        and partition between :first and :last
    order by usage_type, partition
    """,
)


@dataclass(frozen=True)
class SealedParity:
    """What the meter had of a month when it was sealed, as far as it was compared.

    Attributes:
        usage_type: Of which usage.
        partition: Of which month, as "2026-01".
        sealed_at: When.
        key_count: All keys of the month.
        compared_count: Those that had been compared.
        differing_count: Those with a difference.
        log_units: What the log said was sent, of those of which the meter's figure is known.
        provider_units: What the meter had of them.
    """

    usage_type: str
    partition: str
    sealed_at: datetime
    key_count: int
    compared_count: int
    differing_count: int
    log_units: Decimal
    provider_units: Decimal


def sealed_parity(connection: Connection, extent: Extent) -> tuple[SealedParity, ...]:
    """What was recorded with the seals that are in force; in a transaction. Of whole months, whichever customers."""
    asked = {"first": extent.first.key, "last": extent.last.key, **_of_scope(extent)}
    return tuple(SealedParity(**row) for row in connection.execute(_SEALED, asked).mappings())


def months_to_compare(connection: Connection, extent: Extent, *, recent_days: int) -> tuple[BillingMonth, ...]:
    """The months with a period that is open or ended lately; in a transaction of READ COMMITTED."""
    see_every_row(connection, COUNTERS)
    rows = connection.execute(
        _MONTHS,
        {
            "start": extent.start,
            "end": extent.end,
            "recent_days": recent_days,
            **_of_scope(extent),
        },
    )
    return tuple(BillingMonth.parse(key) for key in rows.scalars())


def record_at_seal(connection: Connection, usage: MeteredUsage, month: BillingMonth, *, seal_id: int) -> None:
    """Keep what the meter had of a month with its seal; in the transaction of the seal."""
    parameters = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type, "seal_id": seal_id}
    connection.execute(_RECORD_AT_SEAL, {**parameters, "start": month.start, "end": month.end})


def _of_scope(extent: Extent) -> dict[str, list[str]]:
    return {
        "gateway_names": [usage.gateway_name for usage in extent.scope],
        "usage_types": [usage.usage_type for usage in extent.scope],
    }
