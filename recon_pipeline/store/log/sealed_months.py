"""Which billing months are sealed or counted in the lake: their counters follow that, and not the log.

Invariant: read in each transaction that decides from the log, at its snapshot.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.postgres.statements import labelled

# What stands in the place of the log, by billing month, each with the newest archive of its seal.
# Index: recon.archived_month by seal; recon.month_seal and recon.lake_count have a row for each time that a month was
# sealed, reopened or counted.
_READ_STAND_INS = labelled(
    "read_stand_ins",
    """
    select seal_id, gateway_name, usage_type, partition, covers_until::text as covers_until,
        archive.seen::text as archived_seen, archive.folder as archived_folder,
        seal_id in (select id from recon.month_seal where lake_source is not null) as is_of_lake
    from recon.stand_in
    left join lateral (
        select seen, folder
        from recon.archived_month
        where archived_month.seal_id = stand_in.seal_id
        order by id desc
        limit 1
    ) as archive on true
    order by partition, seal_id
    """,
)


@dataclass(frozen=True)
class SealedMonth:
    """A sealed month of a metered usage, or one that was counted in the lake.

    Attributes:
        seal_id: The seal that counts; below 0: the count in the lake.
        usage: The metered usage.
        month: The billing month.
        covers_until: Of the keys whose periods end until then; others follow the log. As Postgres prints it.
        is_of_lake: It was counted in the lake, or is a seal of such a count: the log need not have its events.
        archived_seen: The snapshot at which the events of the seal were archived, or None: then they have to stay in
            the log. None of a count in the lake.
        archived_folder: Where the files of that archive are.
    """

    seal_id: int
    usage: MeteredUsage
    month: BillingMonth
    covers_until: str
    is_of_lake: bool
    archived_seen: str | None = None
    archived_folder: str | None = None

    @property
    def is_sealed(self) -> bool:
        """Whether it is sealed; else an engine counted it in the lake."""
        return self.seal_id > 0


def read_sealed_months(connection: Connection) -> tuple[SealedMonth, ...]:
    """The sealed months, the oldest first."""
    return tuple(one for one in read_stand_ins(connection) if one.is_sealed)


def read_stand_ins(connection: Connection) -> tuple[SealedMonth, ...]:
    """The months in which a seal, or a count in the lake, stands in the place of the log, the oldest first."""
    return tuple(
        SealedMonth(
            row.seal_id,
            MeteredUsage(row.gateway_name, row.usage_type),
            BillingMonth.parse(row.partition),
            row.covers_until,
            row.is_of_lake or row.seal_id < 0,
            row.archived_seen,
            row.archived_folder,
        )
        for row in connection.execute(_READ_STAND_INS)
    )
