"""An audit log in the same database as a source: a table, or a query that a person wrote.

Invariant: read in a transaction that cannot write, with a cursor on the server, so that its size does not matter.
"""

from collections.abc import Iterator

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.core.backfill.columns import Columns
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
                cursor.execute(query.encode())
                columns = tuple(column.name for column in cursor.description or ())
                _require_distinct(columns, source)
                while rows := cursor.fetchmany(chunk_rows):
                    values = Columns(dict(zip(columns, zip(*rows, strict=True), strict=True)))
                    lines = range(number + 1, number + len(rows) + 1)
                    number += len(rows)
                    yield SourceRows(source, columns, lines, values, None)
        except psycopg.Error as error:
            failed = DBAPIError.instance(query, None, error, psycopg.Error)
            if not isinstance(failed, DBAPIError):
                raise
            if isinstance(error, (psycopg.ProgrammingError, psycopg.InternalError)):
                raise ReconError(
                    f"{source} cannot be read: {first_line(failed)}",
                    changed=NOTHING_INSERTED,
                    fix="Try the query in psql, as the role of DATABASE_URL; it can only read.",
                ) from error
            raise failed from error


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


def _require_distinct(columns: tuple[str, ...], source: str) -> None:
    if len(set(columns)) != len(columns):
        raise ConfigurationError(
            f"{source} gives two columns one name.",
            changed=NOTHING_INSERTED,
            fix="Give each column a name of its own.",
        )
