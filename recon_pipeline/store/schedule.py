"""Which billing months a tick must look at, and which need no further look."""

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.basis import Sums
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.drift import Verification
from recon_pipeline.store.statements import statement

OVERLAP_MINUTES = 60
"""In full mode, a transaction that was open for longer than this when a month was verified is left to the nightly
audit."""


def months_to_reconcile(
    connection: Connection, extent: Extent, *, recent_days: int, sums: Sums
) -> tuple[BillingMonth, ...]:
    """Months with a period that is open or ended lately, and older ones that were touched since they were verified.

    Args:
        connection: In a transaction.
        extent: All that is known.
        recent_days: How long a period stays in every tick after its end.
        sums: Whether the log can be read in increments; then only what is new in it is read.
    """
    parameters = {
        "gateway_names": [usage.gateway_name for usage in extent.scope],
        "usage_types": [usage.usage_type for usage in extent.scope],
        "start": extent.start,
        "end": extent.end,
        "recent_days": recent_days,
    }
    if sums is Sums.INCREMENTS:
        months = [month.key for month in months_between(extent.first, extent.last)]
        rows = connection.execute(statement("months_with_news"), parameters | {"partitions": months})
    else:
        rows = connection.execute(statement("months_to_reconcile"), parameters | {"overlap_minutes": OVERLAP_MINUTES})
    return tuple(BillingMonth.parse(key) for key in rows.scalars())


def note_verified(connection: Connection, run: Reconciliation, answer: Verification) -> None:
    """Remember that every counter of the run's months matched; nothing for a run over some customers only."""
    if run.extent.customers is not None:
        return
    months = months_between(run.extent.first, run.extent.last)
    connection.execute(
        statement("note_verified_months"), {"run_id": run.run_id, "partitions": [month.key for month in months]}
    )
    for verified in answer.verified:
        connection.execute(
            statement("note_verified_below"),
            {
                "gateway_name": verified.usage.gateway_name,
                "usage_type": verified.usage.usage_type,
                "partitions": [month.partition for month in verified.months],
                "recomputed_counts": [month.recomputed_count for month in verified.months],
                "verified_below": str(verified.months[0].horizon),
                "counters_verified_below": str(verified.mark.below),
                "counters_kept": verified.mark.fingerprint.kept,
                "counters_written": verified.mark.fingerprint.written,
            },
        )
