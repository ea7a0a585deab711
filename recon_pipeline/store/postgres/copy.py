"""COPY, which neither SQLAlchemy nor a bound parameter can do; the driver's errors are raised as SQLAlchemy's."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


def copy_in(connection: Connection, sql: str, rows: Iterable[Sequence[Any]]) -> None:
    """Send rows by `copy … from stdin`, in the connection's transaction.

    Raises:
        DBAPIError: As any statement of SQLAlchemy's.
    """
    with _copying(connection, sql) as copy:
        for row in rows:
            copy.write_row(row)


def copy_lines_in(connection: Connection, sql: str, lines: str) -> None:
    """Send rows that are written as COPY's text format already, likewise.

    Raises:
        DBAPIError: As any statement of SQLAlchemy's.
    """
    with _copying(connection, sql) as copy:
        copy.write(lines)


def copy_bytes_in(connection: Connection, sql: str, pieces: Iterable[bytes]) -> None:
    """Send rows in the format that the statement names, piece after piece as they come, likewise.

    Raises:
        DBAPIError: As any statement of SQLAlchemy's.
    """
    with _copying(connection, sql) as copy:
        for piece in pieces:
            copy.write(piece)


@contextmanager
def _copying(connection: Connection, sql: str) -> Generator[psycopg.Copy]:
    driver: Any = connection.connection.driver_connection
    try:
        with driver.cursor() as cursor, cursor.copy(sql.encode()) as copy:
            yield copy
    except psycopg.Error as error:
        raise DBAPIError.instance(sql, None, error, psycopg.Error) from error


def storable(text: str) -> str:
    """Text as Postgres can hold it: without NUL and halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
