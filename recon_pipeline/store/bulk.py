"""COPY, which neither SQLAlchemy nor a bound parameter can do; what the driver reports is told like everything else."""

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store.statements import source


def copy_in(connection: Connection, statement_name: str, rows: Iterable[Sequence[Any]]) -> None:
    """Send rows by `copy … from stdin`, in the connection's transaction.

    Raises:
        DBAPIError: As any statement of SQLAlchemy's.
    """
    driver: Any = connection.connection.driver_connection
    text = source(statement_name)
    try:
        with driver.cursor() as cursor, cursor.copy(text.encode()) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(text, None, error, psycopg.Error) from error


def storable(text: str) -> str:
    """Text as Postgres can hold it: without NUL and halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
