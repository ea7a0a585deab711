"""What the owner of the log may run once a month is archived; the product itself deletes no event.

Invariant: only what is in the archive goes. A partition is detached only if it holds nothing else. A deletion leaves
out each row that was written after the snapshot at which the events were read, and each table that was not read: one
that was attached or renamed since may hold older rows. On another server, on one that was promoted or restored to a
point in time (there ids may name other transactions than those that were read), and once transaction ids no longer
show what is older, it deletes nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import LiteralString

from psycopg import sql
from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.tables import EVENTS
from recon_pipeline.store.postgres.statements import labelled, with_name

# A table and, if it is a partition, the one that it belongs to; both as a statement names them.
# Index: the catalog's own.
# Binds: relation oid
_PARENT = labelled(
    "parent_of_partition",
    """
    select
        part.oid::regclass::text as name,
        (select inhparent::regclass::text from pg_inherits where inhrelid = part.oid) as parent
    from pg_class as part
    where part.oid = :relation
    """,
)
# Which server this is, and how often it was promoted or restored to a point in time, where we may know it.
_SERVER = labelled(
    "server_of_archive",
    """
    select
        case
            when has_function_privilege('pg_control_system()', 'execute')
                then (select system_identifier from pg_control_system())
        end as identifier,
        case
            when has_function_privilege('pg_control_checkpoint()', 'execute')
                then (select timeline_id from pg_control_checkpoint())
        end as timeline
    """,
)
_TELLING_XIDS = 2**31 - 10**7
"""So many transactions after a row was written Postgres still knows that it is older."""


def statements_for_owner(
    connection: Connection,
    tables: Sequence[tuple[MeteredUsage, int]],
    month: BillingMonth,
    *,
    seen: str,
    covers_until: datetime,
) -> tuple[str, ...]:
    """The statements by which the archived events leave the log.

    Args:
        connection: In a transaction.
        tables: What was archived, and the table that it was read from, by its oid: a partition, or the log itself.
        month: Which.
        seen: The snapshot at which they were read.
        covers_until: Events of periods that end later were not archived.
    """
    condition = _condition(connection, tables, month, seen, covers_until)
    found = [_detached(connection, relation, condition) for relation in sorted({relation for _, relation in tables})]
    if tables and None not in found:
        return tuple(filter(None, found))
    return (f"delete from {EVENTS} where {condition};",) if tables else ()  # noqa: S608 - values are quoted


def _detached(connection: Connection, relation: int, condition: str) -> str | None:
    """The statement that detaches a partition which holds only what was archived, or None."""
    table = connection.execute(_PARENT, {"relation": relation}).one_or_none()
    if table is None or table.parent is None:
        return None
    other = f"select exists (select from only {table.name} where ({condition}) is not true)"  # noqa: S608 - names are quoted
    if connection.exec_driver_sql(with_name("other_rows_of_partition", other.replace("%", "%%"))).scalar_one():
        return None
    return f"alter table {table.parent} detach partition {table.name};"


def _condition(
    connection: Connection,
    tables: Sequence[tuple[MeteredUsage, int]],
    month: BillingMonth,
    seen: str,
    covers_until: datetime,
) -> str:
    read = sql.SQL(", ").join(
        sql.SQL("({}, {}, {})").format(sql.Literal(usage.gateway_name), sql.Literal(usage.usage_type), relation)
        for usage, relation in tables
    )
    seen_from, seen_until = (int(part) for part in seen.split(":")[:2])
    server = connection.execute(_SERVER).one()
    text = sql.SQL(
        "(gateway_name, usage_type, tableoid) in ({}) and period_start >= {} and period_start < {}"
        " and (period_end > {}) is not true and recon.is_settled(xmin, {}::xid8)"
        " and (select pg_snapshot_xmax(pg_current_snapshot()) between {}::xid8 and {}::xid8){}{}"
    ).format(
        read,
        sql.Literal(f"{month.start:%Y-%m-%d} 00:00+00"),
        sql.Literal(f"{month.end:%Y-%m-%d} 00:00+00"),
        sql.Literal(f"{covers_until.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"),
        sql.Literal(str(seen_from)),
        sql.Literal(str(seen_until)),
        sql.Literal(str(seen_from + _TELLING_XIDS)),
        _where_known(" and (select system_identifier = {} from pg_control_system())", server.identifier),
        _where_known(" and (select timeline_id = {} from pg_control_checkpoint())", server.timeline),
    )
    return text.as_string(connection.connection.driver_connection)  # pyright: ignore[reportArgumentType]


def _where_known(condition: LiteralString, value: int | None) -> sql.Composable:
    return sql.SQL("") if value is None else sql.SQL(condition).format(sql.Literal(value))
