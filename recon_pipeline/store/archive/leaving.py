"""What the owner of the log may run once a month is archived; the product itself deletes no event.

Invariant: only what is in the archive goes. A partition is detached only if it holds nothing else; a deletion leaves
out each row that was written after the snapshot at which the events were read.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from psycopg import sql
from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.tables import EVENTS
from recon_pipeline.store.postgres.statements import labelled, with_name

# The table that a partition belongs to, or null for one that is no partition; both as a statement names them.
# Index: the catalog's own.
# Binds: table_name text
_PARENT = labelled(
    "parent_of_partition",
    """
    select (select inhparent::regclass::text from pg_inherits where inhrelid = part.oid) as parent
    from pg_class as part
    where part.oid = to_regclass(:table_name)
    """,
)


def statements_for_owner(
    connection: Connection,
    tables: Sequence[str],
    usages: Sequence[MeteredUsage],
    month: BillingMonth,
    *,
    seen: str,
    covers_until: datetime,
) -> tuple[str, ...]:
    """The statements by which the archived events leave the log.

    Args:
        connection: In a transaction.
        tables: The partitions that hold events of the month, or the log itself, as statements name them.
        usages: That were archived.
        month: Which.
        seen: The snapshot at which they were read.
        covers_until: Events of periods that end later were not archived.
    """
    condition = _condition(connection, usages, month, seen, covers_until)
    found = [_detached(connection, table, condition) for table in tables]
    if tables and None not in found:
        return tuple(filter(None, found))
    return (f"delete from {EVENTS} where {condition};",) if tables else ()  # noqa: S608 - values are quoted


def _detached(connection: Connection, table: str, condition: str) -> str | None:
    """The statement that detaches a partition which holds only what was archived, or None."""
    parent: str | None = connection.execute(_PARENT, {"table_name": table}).scalar_one()
    if parent is None:
        return None
    other = f"select exists (select from only {table} where ({condition}) is not true)"  # noqa: S608 - names are quoted
    if connection.exec_driver_sql(with_name("other_rows_of_partition", other)).scalar_one():
        return None
    return f"alter table {parent} detach partition {table};"


def _condition(
    connection: Connection, usages: Sequence[MeteredUsage], month: BillingMonth, seen: str, covers_until: datetime
) -> str:
    pairs = sql.SQL(", ").join(
        sql.SQL("({}, {})").format(sql.Literal(usage.gateway_name), sql.Literal(usage.usage_type)) for usage in usages
    )
    text = sql.SQL(
        "(gateway_name, usage_type) in ({}) and period_start >= {} and period_start < {}"
        " and (period_end > {}) is not true and recon.is_settled(xmin, pg_snapshot_xmin({}))"
    ).format(
        pairs,
        sql.Literal(f"{month.start:%Y-%m-%d} 00:00+00"),
        sql.Literal(f"{month.end:%Y-%m-%d} 00:00+00"),
        sql.Literal(f"{covers_until.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"),
        sql.Literal(seen),
    )
    return text.as_string(connection.connection.driver_connection)  # pyright: ignore[reportArgumentType]
