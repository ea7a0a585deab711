"""What came after months were sealed, remembered in `recon.usage_month`: a run asks only where something is new.

Invariant: what is remembered is true of the stored sums beside it. Whoever writes sums of a month, or finds that
changed events leave them as they are, forgets it in the same transaction. It is kept only by who has the row of
`recon.event_log`, so that nobody writes sums meanwhile, and if none were written since before it was asked. It is of
one seal, archive and count in the lake, none of which ever changes; of another one it says nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.scope import Extent
from recon_pipeline.store.counters.since_seals import KeySinceSeal, MonthSinceSeal
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.sealed_months import SealedMonth
from recon_pipeline.store.postgres.statements import labelled, statement

# What is remembered of the months of a metered usage, who wrote their sums, and the newest count in the lake of each.
# Index: the primary key of recon.usage_month; none of recon.lake_count, which is small.
# Binds: first text, gateway_name text, last text, usage_type text
_RECALL = labelled(
    "recall_since_seals",
    """
    select month.partition, month.summed_xid::text as summed_xid, month.since_seal, newest.count_id
    from recon.usage_month as month
    left join (
        select gateway_name, usage_type, partition, min(id) as count_id
        from recon.lake_count
        group by gateway_name, usage_type, partition
    ) as newest using (gateway_name, usage_type, partition)
    where month.gateway_name = :gateway_name
        and month.usage_type = :usage_type
        and month.partition between :first and :last
    """,
)
# Remembers what came after a month was sealed, if no sums of the month were written since a transaction.
# Invariant: the caller has locked the row of recon.event_log. Sums of a horizon that is older than the seal say
# nothing, so nothing is remembered of them.
# Index: the primary key of recon.usage_month.
# Binds: gateway_name text, has_ingest_xid boolean, partition text, seal_id bigint, since_seal jsonb, summed_xid xid8
# Binds: usage_type text
_REMEMBER = labelled(
    "remember_since_seal",
    """
    update recon.usage_month
    set since_seal = :since_seal
    where gateway_name = :gateway_name
        and usage_type = :usage_type
        and partition = :partition
        and summed_xid = cast(:summed_xid as xid8)
        and (
            not :has_ingest_xid
            or (select horizon from recon.event_log)
            >= (select pg_snapshot_xmax(seen)::text::xid8 from recon.month_seal where id = :seal_id)
        )
    """,
)


@dataclass(frozen=True)
class Remembered:
    """What is known of a sealed month before anything is asked.

    Attributes:
        month: Which.
        of: What this is about, as it is kept: the seal, its archive, the count in the lake, and the form of a sample.
        summed_xid: Who wrote the sums of the month; None: it is not built, and nothing of it can be remembered.
        is_known: Whether it was asked of these sums.
        came: What came since, or None.
    """

    month: SealedMonth
    of: dict[str, Any]
    summed_xid: str | None = None
    is_known: bool = False
    came: MonthSinceSeal | None = None


def recall(connection: Connection, tables: BillingTables, extent: Extent) -> tuple[Remembered, ...]:
    """What is remembered of the sealed months of an extent; in a transaction, before anything of them is asked.

    Args:
        connection: In a transaction.
        tables: How the tables are shaped, with the sealed months.
        extent: Of which scope and months.
    """
    found: list[Remembered] = []
    for usage in extent.scope:
        sealed = tables.sealed_within(usage, extent)
        asked = {**vars(usage), "first": extent.first.key, "last": extent.last.key}
        rows = {row.partition: row for row in connection.execute(_RECALL, asked)} if sealed else {}
        found += [_remembered(month, rows.get(month.month.key)) for month in sealed]
    return tuple(found)


def remember(connection: Connection, tables: BillingTables, looked_at: Sequence[Remembered]) -> None:
    """Keep what was found of months, unless their sums were written meanwhile, or another run writes sums.

    Args:
        connection: In a READ COMMITTED transaction.
        tables: How the tables are shaped.
        looked_at: As they were recalled, with what came since.
    """
    if connection.execute(statement("lock_event_log")).one_or_none() is None:
        return
    for one in looked_at:
        kept = {"of": one.of, "came": None if one.came is None else asdict(one.came)}
        asked = {
            **vars(one.month.usage),
            "partition": one.month.month.key,
            "seal_id": one.month.seal_id,
            "has_ingest_xid": tables.has_ingest_xid,
            "summed_xid": one.summed_xid,
            "since_seal": json.dumps(kept),
        }
        connection.execute(_REMEMBER, asked)


def _remembered(month: SealedMonth, row: Any) -> Remembered:
    of = {
        "seal_id": month.seal_id,
        "archived_seen": month.archived_seen,
        "count_id": row and row.count_id,
        "sample": [field.name for field in fields(KeySinceSeal)],
    }
    if row is None:
        return Remembered(month, of)
    kept: dict[str, Any] | None = row.since_seal
    if kept is None or kept["of"] != of:
        return Remembered(month, of, row.summed_xid)
    return Remembered(month, of, row.summed_xid, True, _came(month, kept["came"]))


def _came(month: SealedMonth, kept: dict[str, Any] | None) -> MonthSinceSeal | None:
    if kept is None:
        return None
    sample = tuple(KeySinceSeal(**key) for key in kept["sample"])
    figures: dict[str, Any] = {**kept, "usage": month.usage, "sample": sample}
    return MonthSinceSeal(**figures)
