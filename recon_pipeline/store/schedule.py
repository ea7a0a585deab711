"""Which billing months a tick must look at, and which need no further look."""

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.statements import statement

OVERLAP_MINUTES = 60
"""A transaction that was open for longer than this when a month was verified is left to the nightly audit."""


def months_to_reconcile(connection: Connection, extent: Extent, *, recent_days: int) -> tuple[BillingMonth, ...]:
    """Months with a period that is open or ended lately, and older ones that were touched since they were verified.

    Args:
        connection: In a transaction.
        extent: All that is known.
        recent_days: How long a period stays in every tick after its end.
    """
    rows = connection.execute(
        statement("months_to_reconcile"),
        {
            "gateway_names": sorted({usage.gateway_name for usage in extent.scope}),
            "usage_types": sorted({usage.usage_type for usage in extent.scope}),
            "start": extent.start,
            "end": extent.end,
            "recent_days": recent_days,
            "overlap_minutes": OVERLAP_MINUTES,
        },
    )
    return tuple(BillingMonth.parse(key) for key in rows.scalars())


def note_verified(connection: Connection, run: Reconciliation) -> None:
    """Remember that every counter of the run's months matched the log; nothing for a run over some customers only."""
    months = months_between(run.extent.first, run.extent.last)
    connection.execute(
        statement("note_verified_months"), {"run_id": run.run_id, "partitions": [month.key for month in months]}
    )
