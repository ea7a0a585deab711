"""What monitoring and an explanation show of the comparison with a meter."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# The units of differences by class; of every usage and month.
# Index: none: one pass over the differences, which are few.
_UNITS_BY_CLASS = labelled(
    "units_by_class",
    """
    select kind, sum(abs(provider_units - log_units))::numeric as units
    from recon.parity_difference
    group by kind
    order by kind
    """,
)
# For how long the key has not been compared of which that is longest, of those that can still be billed, or were never
# compared and still can be; null without such keys.
# Index: none: one pass over the keys.
_OLDEST_SECONDS = labelled(
    "oldest_comparison",
    """
    select extract(epoch from now() - min(coalesce(compared_at, first_noted_at)))::float8
    from recon.parity_key
    cross join (select max(looked_at) as last_at from recon.parity_month) as looked
    where period_end > looked.last_at - case when compared_at is null then interval '35 days' else '3 days' end
    """,
)
# The last comparison of one key.
# Index: the primary keys of recon.parity_key, and recon.parity_difference by key.
# Binds: customer text, gateway_name text, period_end timestamptz, period_start timestamptz, usage_type text
_COMPARED_KEY = labelled(
    "compared_key",
    """
    select
        key.compared_log_units, key.provider_units, key.compared_at, key.error,
        array(
            select distinct difference.kind
            from recon.parity_difference as difference
            where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
                = (key.gateway_name, key.usage_type, key.gateway_customer_id, key.period_start, key.period_end)
            order by difference.kind
        ) as kinds
    from recon.parity_key as key
    where (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
        = (:gateway_name, :usage_type, :customer, :period_start, :period_end)
        and compared_at is not null
    """,
)


@dataclass(frozen=True)
class ParityMetrics:
    """What monitoring asks for.

    Attributes:
        units: Of differences, in both directions, by class.
        oldest_seconds: For how long the key has not been compared of which that is longest; None: nothing is compared.
    """

    units: dict[str, Decimal]
    oldest_seconds: float | None


@dataclass(frozen=True)
class ParityOfKey:
    """The last comparison of a key.

    Attributes:
        compared_log_units: What the log said was sent.
        provider_units: What the meter had; None if the customer was refused, or the log names nobody to ask about.
        compared_at: When.
        error: Why the customer was refused, or None.
        kinds: The classes of differences.
    """

    compared_log_units: Decimal
    provider_units: Decimal | None
    compared_at: datetime
    error: str | None
    kinds: tuple[str, ...]


def parity_metrics(connection: Connection) -> ParityMetrics:
    """Read them; in a transaction."""
    units = {row.kind: row.units for row in connection.execute(_UNITS_BY_CLASS)}
    return ParityMetrics(units, connection.execute(_OLDEST_SECONDS).scalar_one())


def parity_of_key(
    connection: Connection, usage: MeteredUsage, customer: str, period: tuple[datetime, datetime]
) -> ParityOfKey | None:
    """The last comparison of a key, or None if there was none; in a transaction."""
    asked = {"customer": customer, "period_start": period[0], "period_end": period[1]}
    asked |= {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type}
    row = connection.execute(_COMPARED_KEY, asked).mappings().one_or_none()
    if row is None:
        return None
    return ParityOfKey(
        compared_log_units=row["compared_log_units"],
        provider_units=row["provider_units"],
        compared_at=row["compared_at"],
        error=row["error"],
        kinds=tuple(row["kinds"]),
    )
