"""Which billing months are sealed: their counters follow the seal, and not the log.

Invariant: read in each transaction that decides from the log, at its snapshot.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# The billing months that are sealed, each with the seal that counts.
# Index: none; recon.month_seal has a row for each month that was sealed or reopened.
_READ_SEALED_MONTHS = labelled(
    "read_sealed_months",
    "select seal_id, gateway_name, usage_type, partition from recon.sealed_month order by partition, seal_id",
)


@dataclass(frozen=True)
class SealedMonth:
    """A sealed month of a metered usage, and the seal that counts."""

    seal_id: int
    usage: MeteredUsage
    month: BillingMonth


def read_sealed_months(connection: Connection) -> tuple[SealedMonth, ...]:
    """All of them, the oldest month first."""
    return tuple(
        SealedMonth(row.seal_id, MeteredUsage(row.gateway_name, row.usage_type), BillingMonth.parse(row.partition))
        for row in connection.execute(_READ_SEALED_MONTHS)
    )
