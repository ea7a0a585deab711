"""The seal, or the count in the lake, that the counter of one key follows, for an explanation of it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled

# A seal, and what it says of one key: nothing of a key without events; no row for a period that ended later.
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
    where seal.id = :seal_id and seal.acted_at >= :period_end
    """,
)
# A count in the lake, and what it says of one key: nothing of a key without events.
# Index: the primary keys of recon.lake_count and recon.lake_counter.
# Binds: customer text, period_end timestamptz, period_start timestamptz, seal_id bigint
_READ_COUNT_OF_KEY = labelled(
    "read_lake_count_of_key",
    """
    select count.acted_at, count.acted_by, coalesce(key.usage_count, 0) as usage_count,
        coalesce(key.event_count, 0) as event_count
    from recon.lake_count as count
    left join recon.lake_counter as key
        on key.count_id = count.id
        and key.gateway_customer_id = :customer
        and key.period_start = :period_start
        and key.period_end = :period_end
    where count.id = :seal_id
    """,
)


@dataclass(frozen=True)
class SealOfKey:
    """When the month of a key was sealed or counted in the lake, and at what.

    Attributes:
        is_sealed: Else it was only counted in the lake.
        is_of_lake: Its sum was counted in the lake.
        acted_at: When.
        acted_by: Who did it.
        usage_count: The sealed sum, or the sum in the lake.
        event_count: The events that it is of.
        archived_folder: Where these events are, if the month was archived.
    """

    is_sealed: bool
    is_of_lake: bool
    acted_at: datetime
    acted_by: str
    usage_count: int | Decimal
    event_count: int
    archived_folder: str | None


def seal_of_key(
    connection: Connection,
    tables: BillingTables,
    usage: MeteredUsage,
    customer: str,
    period: tuple[datetime, datetime],
) -> SealOfKey | None:
    """The seal of a key or its count in the lake, or None if the key follows the log; in a transaction."""
    month = BillingMonth.containing(period[0])
    found = next((one for one in tables.stand_ins if (one.usage, one.month) == (usage, month)), None)
    if found is None:
        return None
    asked = {"customer": customer, "period_start": period[0], "period_end": period[1], "seal_id": found.seal_id}
    read = _READ_SEAL_OF_KEY if found.is_sealed else _READ_COUNT_OF_KEY
    said = connection.execute(read, asked).mappings().one_or_none()
    if said is None:
        return None
    return SealOfKey(
        is_sealed=found.is_sealed, is_of_lake=found.is_of_lake, archived_folder=found.archived_folder, **said
    )
