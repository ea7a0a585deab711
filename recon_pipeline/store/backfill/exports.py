"""An audit log in the same database as a source: a table, or a query that a person wrote.

Invariant: a transaction that cannot write reads it, with a cursor on the server, so its size does not matter.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer
from psycopg.abc import Loader as AnyLoader
from psycopg.adapt import Loader
from psycopg.types.json import set_json_loads
from psycopg.types.string import TextLoader
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.backfill.columns import Columns
from recon_pipeline.core.backfill.exact_json import decode
from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.backfill.rows import SourceRows
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.errors import first_line
from recon_pipeline.store.postgres.statements import labelled

# Lets a transaction read and no more.
# Invariant: ends with the transaction; must be its first statement but for settings.
_READ_ONLY = labelled("read_only", "set transaction read only")
# The table that search_path finds under a name, quoted; null where it finds none.
# Binds: name text
_FIND_TABLE = labelled("find_table", "select to_regclass(:name)::text")

TABLE, QUERY = "table:", "query:"
_OF_THE_QUERY = (psycopg.ProgrammingError, psycopg.InternalError, psycopg.DataError, psycopg.NotSupportedError)
"""Errors that are about what a person wrote: a wrong name, a division by zero, a statement that writes."""
_TIMES = ("date", "timestamp", "timestamptz", "time", "timetz")
"""Types of which Postgres has values that Python has not: infinity, years before Christ or after 9999, 24:00."""


def is_in_database(source: str) -> bool:
    """Whether a source is a table or a query, not a file."""
    return source.startswith((TABLE, QUERY))


def read_export(database: BillingDatabase, source: str, *, chunk_rows: int) -> Iterator[SourceRows]:
    """The rows of a table or query.

    Raises:
        ReconError: There is no such table, the query is wrong, or the connection was lost.
    """
    with database.transaction() as connection:
        connection.execute(_READ_ONLY)
        query = source.removeprefix(QUERY) if source.startswith(QUERY) else _table_query(connection, source)
        driver = connection.connection.driver_connection
        if driver is None:
            raise RuntimeError("a connection in a transaction has its driver's")
        number = 0
        try:
            with psycopg.ServerCursor(driver, "recon_export") as cursor:
                _keep_values_as_written(cursor)
                cursor.execute(query.encode())
                columns = tuple(column.name for column in cursor.description or ())
                _require_columns(columns, source)
                while rows := cursor.fetchmany(chunk_rows):
                    values = Columns(dict(zip(columns, zip(*rows, strict=True), strict=True)))
                    lines = range(number + 1, number + len(rows) + 1)
                    number += len(rows)
                    yield SourceRows(source, columns, lines, values, None)
        except psycopg.Error as error:
            failed = DBAPIError.instance(query, None, error, psycopg.Error)
            if not isinstance(failed, DBAPIError):
                raise
            if isinstance(error, _OF_THE_QUERY):
                raise ReconError(
                    f"{source} cannot be read: {first_line(failed)}",
                    changed=NOTHING_INSERTED,
                    fix="Try the query in psql, as the role of DATABASE_URL; it can only read.",
                ) from error
            raise failed from error


def _keep_values_as_written(cursor: psycopg.ServerCursor[Any]) -> None:
    """Read JSON to the last digit, intervals as text (a month is no number of days), and times that Python lacks."""
    set_json_loads(_json, cursor)
    cursor.adapters.register_loader("interval", TextLoader)
    for name in _TIMES:
        cursor.adapters.register_loader(
            name, _or_text(psycopg.adapters.get_loader(psycopg.adapters.types[name].oid, psycopg.pq.Format.TEXT))
        )


def _or_text(usual: type[AnyLoader] | None) -> type[Loader]:
    """A loader that returns the text of a value that the usual loader cannot read: only its row is rejected."""

    class OrText(Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._usual = (usual or TextLoader)(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                return self._usual.load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return OrText


def _json(value: str | bytes) -> Any:
    text = value if isinstance(value, str) else value.decode()
    try:
        return decode(text)
    except ValueError:  # nested too deeply: text is kept as it is
        return text


def _table_query(connection: Connection, source: str) -> str:
    name = source.removeprefix(TABLE).strip()
    found = connection.execute(_FIND_TABLE, {"name": name}).scalar_one()
    if found is None:
        raise ConfigurationError(
            f"There is no table {name!r} in the billing database, on its search_path.",
            changed=NOTHING_INSERTED,
            fix="Name its schema too, as in table:audit.usage_log.",
        )
    return f"select * from {found}"  # noqa: S608 - quoted by Postgres, as regclass


def _require_columns(columns: tuple[str, ...], source: str) -> None:
    if not columns or len(set(columns)) != len(columns):
        raise ConfigurationError(
            f"{source} gives {'two columns one name' if columns else 'no column'}.",
            changed=NOTHING_INSERTED,
            fix="Give each column a name of its own.",
        )
