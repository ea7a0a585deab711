"""Reads a month of the log as Arrow, at one snapshot, without a row object of Python.

Invariant: the snapshot is that of the caller's decision, which holds the locks meanwhile. ADBC's driver reads with COPY
in a session of its own, with the settings of every transaction of ours.
"""

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection

from recon_pipeline.core.errors import NOTHING_ARCHIVED, ReconError, archives_need
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.archive.columns import COUNTED, Column, kept, log_columns, measured
from recon_pipeline.store.backfill.read_ahead import read_ahead
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.database import settings_of_transaction
from recon_pipeline.store.postgres.statements import labelled, source, statement
from recon_pipeline.store.sums.run import Reconciliation

_BATCH_BYTES = 8 * 2**20
_COVERED = "and (period_end > cast(:covers_until as timestamptz)) is not true"
_BIND = re.compile(r"(?<![:\w]):(\w+)")

# The snapshot of the transaction, for another session that reads at it, and as it is recorded.
_EXPORT_SNAPSHOT = labelled(
    "export_snapshot", "select pg_export_snapshot() as exported, pg_current_snapshot()::text as seen"
)
# The sealed sums of a seal, for a program that compares them.
# Index: the primary key of recon.sealed_counter.
# Binds: seal_id bigint
_SEALED_SUMS = labelled(
    "sealed_sums_for_engine",
    """
    select
        gateway_customer_id, period_start, period_end, usage_count, event_count, event_checksum::text as event_checksum
    from recon.sealed_counter
    where seal_id = :seal_id
    """,
)


@dataclass(frozen=True)
class MonthToArchive:
    """The events of a month of a metered usage, as they are about to be read.

    Attributes:
        columns: Of the log, and how each is kept.
        tables: The oids of the tables that hold the events: partitions, or the log itself.
        seen: The snapshot.
        schema: Of the batches.
        batches: The rows as Arrow, with the columns in their order, and `COUNTED`; numbers as text.
    """

    columns: tuple[Column, ...]
    tables: tuple[int, ...]
    seen: str
    schema: Any
    batches: Iterator[Any]

    @property
    def decimals(self) -> list[int | None]:
        """For each column of the batches the digits after the point, if it is a decimal, or None."""
        return [*(column.decimals for column in self.columns), None]


@contextmanager
def month_to_archive(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    usage: MeteredUsage,
    *,
    covers_until: datetime | str,
) -> Generator[MonthToArchive]:
    """Read the one month of a run's extent.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables.
        run: What is read.
        tables: How the tables are shaped.
        usage: The metered usage.
        covers_until: Events of periods that end later are left out.

    Raises:
        ReconError: A column has the name of ours, the driver is not installed, or it failed.
    """
    columns, extent = log_columns(connection), source("in_extent").replace("{in_months}", source("in_months"))
    extent += _COVERED
    if any(column.name == COUNTED for column in columns):
        raise ReconError(
            f"The log has a column {COUNTED}, the name under which files say whether an event counted.",
            changed=NOTHING_ARCHIVED,
            fix=f"alter table billing_usage_events rename column {COUNTED} to another name;",
        )
    asked = run.parameters(usage, tables) | {"covers_until": covers_until}
    found = measured(connection, columns, _in_sql(connection, extent, asked))
    columns = kept(columns, found)
    snapshot = connection.execute(_EXPORT_SNAPSHOT).one()
    events = _in_sql(connection, statement("archived_events", tables.parts, which_events="in_extent").text, asked)
    names = {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type}
    known = {name: names[name] for name in (one.name for one in columns if one.is_equal_by_bytes) if name in names}
    selected = "".join(f"{column.selected}, " for column in columns if column.name not in known)
    sql = f"select {selected}event.is_counted as {COUNTED} from ({events}) as event"  # noqa: S608 - names are quoted
    with (
        arrow_rows(connection, sql, snapshot=snapshot.exported, by_policy=tables.reads_by_policy) as reader,
        # Closed before the reader is: no thread reads from it after that.
        closing(read_ahead(_batches(rows := _Rows(reader, columns, known)))) as batches,
    ):
        yield MonthToArchive(columns, tuple(found.tables or ()), snapshot.seen, rows.schema, batches)


class _Rows:
    """The batches of a reader, with the columns in whose every row the same text stands: these are not read.

    Args:
        reader: Of the others, and of `COUNTED`.
        columns: All columns, in their order.
        known: What stands in those that are not read.
    """

    def __init__(self, reader: Any, columns: Sequence[Column], known: Mapping[str, str]) -> None:
        self._arrow: Any = import_module("pyarrow")
        self._reader = reader
        self._known = known
        names = (*(column.name for column in columns), COUNTED)
        self.schema = self._arrow.schema(
            [self._arrow.field(n, self._arrow.string()) if n in known else reader.schema.field(n) for n in names]
        )

    def __iter__(self) -> Iterator[Any]:
        for batch in self._reader:
            arrays = [
                self._arrow.repeat(self._known[name], batch.num_rows) if name in self._known else batch.column(name)
                for name in self.schema.names
            ]
            yield self._arrow.RecordBatch.from_arrays(arrays, schema=self.schema)


def _batches(rows: _Rows) -> Iterator[Any]:
    with _reported():  # here, and not by who writes the rows
        yield from rows


@contextmanager
def sealed_sums(connection: Connection, seal_id: int) -> Generator[Any]:
    """The sealed sums of a seal as Arrow; on a connection in a transaction."""
    with arrow_rows(connection, _in_sql(connection, _SEALED_SUMS.text, {"seal_id": seal_id})) as reader:
        yield reader


@contextmanager
def arrow_rows(
    connection: Connection, sql: str, *, snapshot: str | None = None, by_policy: bool = False
) -> Generator[Any]:
    """The rows of a query as Arrow, read by a session of its own.

    Args:
        connection: To the same database, on the same host.
        sql: Without binds.
        snapshot: That another session exported, whose transaction is open; None: one of its own.
        by_policy: Row level security lets us see every row, and the caller holds the locks that keep it so.

    Raises:
        ReconError: The driver is not installed, or it failed.
    """
    try:
        # An extra, without types; without its DB-API, which loads pandas and polars for seconds.
        adbc: Any = import_module("adbc_driver_manager")
        postgres: Any = import_module("adbc_driver_postgresql")
        arrow: Any = import_module("pyarrow")
    except ImportError as error:
        raise archives_need(error) from error
    first = ("begin isolation level repeatable read read only",)
    if snapshot is not None:
        first += (f"set transaction snapshot '{snapshot}'",)
    settings = (*settings_of_transaction(connection), *(("set local row_security = on",) if by_policy else ()))
    with (
        _reported(),
        postgres.connect(_conninfo(connection)) as database,
        adbc.AdbcConnection(database) as session,
        adbc.AdbcStatement(session) as query,
    ):
        for setting in (*first, *settings):
            query.set_sql_query(setting)
            query.execute_update()
        query.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH_BYTES)})
        query.set_sql_query(sql)
        stream, _ = query.execute_query()
        yield arrow.RecordBatchReader.from_stream(stream)


@contextmanager
def _reported() -> Generator[None]:
    """What Postgres or the driver says, as an error of ours."""
    try:
        yield
    except Exception as error:
        # ADBC's errors have a class of a package that may not be installed; Arrow gives on what it says as OSError.
        if not type(error).__module__.startswith(("adbc_", "pyarrow")) and type(error) is not OSError:
            raise
        raise ReconError(
            f"The log could not be read as Arrow: {str(error).strip().splitlines()[0]}",
            changed=NOTHING_ARCHIVED,
            fix="Fix what Postgres says, and run the command again.",
        ) from error


def _conninfo(connection: Connection) -> str:
    driver: Any = connection.connection.driver_connection
    info: psycopg.ConnectionInfo = driver.info
    given = {name: value for name, value in info.get_parameters().items() if name != "hostaddr"}
    # The host that answered, of those that may be several: a snapshot is known there alone.
    return make_conninfo("", **given | {"host": info.host, "port": info.port, "password": info.password or None})


def _in_sql(connection: Connection, text: str, values: dict[str, Any]) -> str:
    """A text with its values written out by the driver, since COPY takes none."""
    driver: Any = connection.connection.driver_connection
    return psycopg.ClientCursor(driver).mogrify(_BIND.sub(r"%(\1)s", text.replace("%", "%%")).encode(), values)
