"""The seal that the counter of one key follows, for an explanation of it."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled

# A seal, and what it says of one key: nothing of a key without events.
# Index: the primary keys of recon.month_seal and recon.sealed_counter.
# Binds: customer text, period_end timestamptz, period_start timestamptz, seal_id bigint
_READ_SEAL_OF_KEY = labelled(
    "read_seal_of_key",
    """
    select seal.acted_at, seal.acted_by, coalesce(key.usage_count, 0) as usage_count,
        coalesce(key.event_count, 0) as event_count
    from recon.month_seal as seal
    left join recon.sealed_counter as key
        on key.seal_id = seal.id
        and key.gateway_customer_id = :customer
        and key.period_start = :period_start
        and key.period_end = :period_end
    where seal.id = :seal_id
    """,
)


@dataclass(frozen=True)
class SealOfKey:
    """When the month of a key was sealed, and at what.

    Attributes:
        acted_at: When.
        acted_by: Who sealed it.
        usage_count: The sealed sum.
        event_count: The events that it is of.
        archived_folder: Where these events are, if the month was archived.
    """

    acted_at: datetime
    acted_by: str
    usage_count: int
    event_count: int
    archived_folder: str | None


def seal_of_key(
    connection: Connection,
    tables: BillingTables,
    usage: MeteredUsage,
    customer: str,
    period: tuple[datetime, datetime],
) -> SealOfKey | None:
    """The seal of a key's month, or None in an open month; in a transaction."""
    month = BillingMonth.containing(period[0])
    sealed = next((one for one in tables.sealed if (one.usage, one.month) == (usage, month)), None)
    if sealed is None:
        return None
    asked = {"customer": customer, "period_start": period[0], "period_end": period[1], "seal_id": sealed.seal_id}
    found = connection.execute(_READ_SEAL_OF_KEY, asked).mappings().one()
    return SealOfKey(**found, archived_folder=sealed.archived_folder)
