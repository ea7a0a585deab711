"""Which billing months a tick must look at."""

from datetime import timedelta

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.statements import statement

OVERLAP = timedelta(hours=1)
"""created_at is the start of the transaction that wrote the event: one that commits late is still found."""


def months_to_reconcile(connection: Connection, extent: Extent, *, recent_days: int) -> tuple[BillingMonth, ...]:
    """Months with a period that is open or ended lately, and older ones with new events or touched counters.

    Args:
        connection: In a transaction.
        extent: All that is known.
        recent_days: How long a period stays in every tick after its end.
    """
    last = connection.execute(statement("last_finished_run")).scalar_one()
    rows = connection.execute(
        statement("months_to_reconcile"),
        {
            "gateway_names": sorted({usage.gateway_name for usage in extent.scope}),
            "usage_types": sorted({usage.usage_type for usage in extent.scope}),
            "start": extent.start,
            "end": extent.end,
            "recent_days": recent_days,
            "since": last - OVERLAP if last is not None else None,
        },
    )
    return tuple(BillingMonth.parse(key) for key in rows.scalars())
