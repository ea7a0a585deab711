"""Which billing months are sealed: their counters follow the seal, and not the log.

Invariant: read in each transaction that decides from the log, at its snapshot.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# The billing months that are sealed, each with the seal that counts, and the snapshot of its newest archive.
# Index: recon.archived_month by seal; recon.month_seal has a row for each month that was sealed or reopened.
_READ_SEALED_MONTHS = labelled(
    "read_sealed_months",
    """
    select seal_id, gateway_name, usage_type, partition, archive.seen::text as archived_seen,
        archive.folder as archived_folder
    from recon.sealed_month
    left join lateral (
        select seen, folder
        from recon.archived_month
        where archived_month.seal_id = sealed_month.seal_id
        order by id desc
        limit 1
    ) as archive on true
    order by partition, seal_id
    """,
)


@dataclass(frozen=True)
class SealedMonth:
    """A sealed month of a metered usage, and the seal that counts.

    Attributes:
        archived_seen: The snapshot at which its events were archived, or None: then they have to stay in the log.
        archived_folder: Where the files of that archive are.
    """

    seal_id: int
    usage: MeteredUsage
    month: BillingMonth
    archived_seen: str | None = None
    archived_folder: str | None = None


def read_sealed_months(connection: Connection) -> tuple[SealedMonth, ...]:
    """All of them, the oldest month first."""
    return tuple(
        SealedMonth(
            row.seal_id,
            MeteredUsage(row.gateway_name, row.usage_type),
            BillingMonth.parse(row.partition),
            row.archived_seen,
            row.archived_folder,
        )
        for row in connection.execute(_READ_SEALED_MONTHS)
    )
