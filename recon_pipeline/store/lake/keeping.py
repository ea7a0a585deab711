"""Keeps what an engine counted of a month: the sums of its keys and the record of the count, in one transaction.

Invariant: one session keeps a month at a time, and none keeps sums of a listing that may be older than that of the sums
that are there. The newest count of a month is the only one whose sums are kept. A count repairs nothing: runs compare
counters with it, as they compare them with a seal.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.lake.counts import LakeCount, count_of
from recon_pipeline.store.postgres.copy import copy_bytes_in
from recon_pipeline.store.postgres.statements import labelled, with_name

# Waits until no other session keeps a count of the month.
# Binds: gateway_name text, partition text, usage_type text
_LOCK = labelled(
    "lock_lake_count",
    """
    select pg_advisory_xact_lock(
        hashtextextended('recon count-lake ' || array[cast(:gateway_name as text), :usage_type, :partition]::text, 0)
    )
    """,
)
# Deletes the sums of earlier counts of a month, and gives the next count its number.
# Index: the primary key of recon.lake_counter, by count; none of recon.lake_count, which is small.
# Binds: gateway_name text, partition text, usage_type text
_MAKE_ROOM = labelled(
    "make_room_for_lake_count",
    """
    with dropped as (
        delete from recon.lake_counter
        where count_id in (
                select id
                from recon.lake_count
                where gateway_name = :gateway_name and usage_type = :usage_type and partition = :partition
            )
    )
    select nextval(pg_get_serial_sequence('recon.lake_count', 'id'))
    """,
)
# The newest count of a month, or of its withdrawal.
# Invariant: read under the lock, by a statement of its own: it sees what the session before has committed.
# Index: none; recon.lake_count is small.
# Binds: gateway_name text, partition text, usage_type text
_NEWEST = labelled(
    "newest_lake_count",
    """
    select min(id)
    from recon.lake_count
    where gateway_name = :gateway_name and usage_type = :usage_type and partition = :partition
    """,
)
_COPY_SUMS = with_name(
    "copy_lake_sums",
    """
    copy recon.lake_counter (
        count_id, gateway_customer_id, period_start, period_end, usage_count, event_count, credit_units
    ) from stdin (format csv)
    """,
)
# Records a count.
# Binds: acted_by text, complete_until timestamptz, dedupe_count bigint, engine text, event_count bigint
# Binds: gateway_name text, id bigint, invalid_count bigint, key_count bigint, nonzero_count bigint
# Binds: outside_period_count bigint, partition text, run_id text, source jsonb, usage_count numeric, usage_type text
_RECORD = labelled(
    "record_lake_count",
    """
    insert into recon.lake_count (
        id, kind, gateway_name, usage_type, partition, acted_by, run_id, engine, complete_until, source,
        key_count, nonzero_count, event_count, usage_count, invalid_count, dedupe_count, outside_period_count
    )
    overriding system value
    values (
        :id, 'counted', :gateway_name, :usage_type, :partition, :acted_by, :run_id, :engine, :complete_until, :source,
        :key_count, :nonzero_count, :event_count, :usage_count, :invalid_count, :dedupe_count, :outside_period_count
    )
    returning *
    """,
)


@dataclass(frozen=True)
class Counting:
    """What is recorded of a count before its sums are known.

    Attributes:
        last_id: The newest count of the month when the lake was listed, or None: there was none.
    """

    usage: MeteredUsage
    month: BillingMonth
    counted_by: str
    run_id: str | None
    engine: str
    complete_until: datetime
    source: Mapping[str, Any]
    last_id: int | None


class Sums(Protocol):
    """The event sums of a month."""

    def lines(self, count_id: int) -> Iterator[bytes]:
        """Lines of CSV, as `copy_lake_sums` reads them."""
        ...

    @property
    def totals(self) -> Mapping[str, Any]:
        """What they add up to, by column of `recon.lake_count`, once all lines have been read."""
        ...


def lock(connection: Connection, usage: MeteredUsage, month: BillingMonth) -> None:
    """Wait until no other session keeps a count of a month, or withdraws it; until the transaction ends."""
    connection.execute(_LOCK, {**vars(usage), "partition": month.key})


def keep(connection: Connection, counting: Counting, sums: Sums) -> LakeCount:
    """Keep the sums of a month, in the connection's transaction.

    Args:
        connection: In a transaction.
        counting: What is counted.
        sums: Of its keys.

    Raises:
        ReconError: The month was counted, or its count withdrawn, by another session since the lake was listed: what
            that session read may be newer.
    """
    of_month = {**vars(counting.usage), "partition": counting.month.key}
    lock(connection, counting.usage, counting.month)
    if connection.execute(_NEWEST, of_month).scalar_one() != counting.last_id:
        raise ReconError(
            f"Another session counted {counting.month.key} of {counting.usage}, or withdrew its count, after this one "
            "had listed the lake.",
            changed="What that session did stays, and this count was not kept. No counter was changed.",
            fix="Run this again: it counts only what changed since.",
        )
    count_id = connection.execute(_MAKE_ROOM, of_month).scalar_one()
    copy_bytes_in(connection, _COPY_SUMS, sums.lines(count_id))
    record = {
        **of_month,
        **sums.totals,
        "id": count_id,
        "acted_by": counting.counted_by,
        "run_id": counting.run_id,
        "engine": counting.engine,
        "complete_until": counting.complete_until,
        "source": json.dumps(counting.source),
    }
    return count_of(connection.execute(_RECORD, record).mappings().one())
