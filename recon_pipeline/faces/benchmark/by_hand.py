"""Inserts late events as one would in psql, with the server's settings: COPY, INSERT … ON CONFLICT DO NOTHING.

The commit counts, too.
"""

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.faces.benchmark.export_forms import Form
from recon_pipeline.faces.benchmark.statements import statement
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import with_name

_BLOCK_BYTES = 2**20
_COPY_LATE_EVENTS = with_name("copy_late_events", "copy pg_temp.late_event from stdin (format csv, header)")


def insert_events(database: BillingDatabase, csv: Path) -> tuple[float, int]:
    """Insert from a CSV with the log's own columns; returns the seconds, and how many rows were new."""
    began = time.perf_counter()
    with database.connection() as connection, connection.begin():
        connection.execute(statement("create_late_events"))
        _copy(connection, _COPY_LATE_EVENTS, csv)
        inserted = connection.execute(statement("insert_late_events")).rowcount
    return time.perf_counter() - began, inserted


def insert_form(database: BillingDatabase, form: Form, exported: Path) -> tuple[float, int]:
    """The same from a file of that form: only what the log has a column for."""
    began = time.perf_counter()
    with database.connection() as connection, connection.begin():
        create = f"create temporary table late_row ({form.columns}) on commit drop"
        connection.exec_driver_sql(with_name("create_late_rows", create))
        copy_rows = with_name("copy_late_rows", f"copy pg_temp.late_row from stdin ({form.options})")
        _copy(connection, copy_rows, exported)
        inserted = connection.execute(statement(form.insert)).rowcount
    return time.perf_counter() - began, inserted


def _copy(connection: Connection, copy_rows: str, source: Path) -> None:
    with source.open("rb") as file, cursor_of(connection) as cursor, cursor.copy(copy_rows) as copy:
        while block := file.read(_BLOCK_BYTES):
            copy.write(block)


def cursor_of(connection: Connection) -> Any:
    """The driver's cursor, for COPY."""
    driver: Any = connection.connection.driver_connection
    return driver.cursor()
