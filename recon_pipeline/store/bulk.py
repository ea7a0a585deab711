"""COPY, which neither SQLAlchemy nor a bound parameter can do; what the driver reports is told like everything else."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
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
    with _copying(connection, statement_name) as copy:
        for row in rows:
            copy.write_row(row)


def copy_lines_in(connection: Connection, statement_name: str, lines: str) -> None:
    """Send rows that are written as COPY's text format already, likewise.

    Raises:
        DBAPIError: As any statement of SQLAlchemy's.
    """
    with _copying(connection, statement_name) as copy:
        copy.write(lines)


@contextmanager
def _copying(connection: Connection, statement_name: str) -> Generator[psycopg.Copy]:
    driver: Any = connection.connection.driver_connection
    text = source(statement_name)
    try:
        with driver.cursor() as cursor, cursor.copy(text.encode()) as copy:
            yield copy
    except psycopg.Error as error:
        raise DBAPIError.instance(text, None, error, psycopg.Error) from error


def storable(text: str) -> str:
    """Text as Postgres can hold it: without NUL and halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
