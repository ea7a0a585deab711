"""The connection to the billing database: how it is opened, how its transactions behave, its name in a message.

Invariant: every transaction has bounded waits, UTC and no JIT from its first statement on, and returns a pooled
connection as it was. So a pooler in transaction mode works: there is no session state and no server-side prepared
statement. Settings and table locks are sent before the first statement that takes a snapshot: a rewriting ALTER TABLE
and TRUNCATE are not MVCC-safe (PostgreSQL manual, 13.6), a snapshot older than them would see an empty table. A
connection to another version of schema `recon` than this code needs is refused, unless the caller allows it explicitly.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import psycopg
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from recon_pipeline import embedded_postgres
from recon_pipeline.core.database_url import for_psycopg, redacted
from recon_pipeline.core.errors import PutOffError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.settings import Settings
from recon_pipeline.store.postgres.errors import LOCK_TIMED_OUT, reporting_driver_errors, sqlstate
from recon_pipeline.store.postgres.schema_version import (
    installed_version,
    is_known_to_be_ours,
    is_standby,
    require_primary,
    require_version,
)
from recon_pipeline.store.postgres.statements import statement, with_name

Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

WORK_MEM = "128MB"
"""Enough for the hash aggregate of about a million keys: a tick that spills to disk takes four times as long."""

DEFAULT_LOCK_TIMEOUT_MS = 2_000
STATEMENT_TIMEOUT_MS = 30 * 60 * 1_000
"""A comparison of a very large log may take minutes; nothing of ours may run on for ever."""

IDLE_TIMEOUT_MS = 30_000
"""How long a transaction may wait for its own process: the server ends the session of one that is frozen or cut off."""

_DEFAULT_IDENTITY = EventIdentity()
_IDENTITY = "recon_event_identity"
"""The option by which every connection knows what its database's owner declares."""

_SETTINGS = """\
set local timezone = 'UTC';
set local datestyle = 'ISO';
set local jit = off;
set local standard_conforming_strings = on;
set local quote_all_identifiers = off;
set local row_security = off;
set local work_mem = '{work_mem}';
set local lock_timeout = {lock_timeout_ms};
set local statement_timeout = {statement_timeout_ms};
set local idle_in_transaction_session_timeout = {idle_timeout_ms};
"""
_SINCE_17 = "set local transaction_timeout = 0"
# SET and LOCK TABLE take no snapshot. With row_security off, a policy that would hide rows is an error. Each statement
# and each pause between two has a limit of its own, so a transaction needs none.


class BillingDatabase:
    """The application's database.

    Args:
        url: Any form of a Postgres URL; it may hold a password, which is never shown.
        keeps_connection: Use one connection again and again until `close`, which knows the tables already: for a run,
            whose statements are short.
        event_identity: The event identity of its log, as the owner declares it.
    """

    def __init__(
        self, url: str, *, keeps_connection: bool = False, event_identity: EventIdentity = _DEFAULT_IDENTITY
    ) -> None:
        self.name = redacted(url)
        self.engine = create_engine(
            for_psycopg(url),
            poolclass=QueuePool if keeps_connection else NullPool,
            pool_pre_ping=keeps_connection,
            connect_args={
                "application_name": "recon_pipeline",
                "client_encoding": "utf8",  # whatever the encoding of the database
                "connect_timeout": 10,
                "prepare_threshold": None,
                "keepalives_idle": 30,
            },
            execution_options={_IDENTITY: event_identity},
        )
        event.listen(self.engine, "connect", _send_arrays_in_binary)

    def close(self) -> None:
        """Close a connection that was kept."""
        self.engine.dispose()

    @contextmanager
    def connection(self, *, any_schema_version: bool = False) -> Generator[Connection]:
        """One connection for several transactions, closed at the end.

        Args:
            any_schema_version: Also allow a missing schema `recon`, or one of another version: to prepare a database or
                to examine it.

        Raises:
            SchemaVersionError: Schema `recon` is of another version, or missing.
            ReconError: The driver reported an error.
        """
        with reporting_driver_errors(self.name), self.engine.connect() as connection:
            if not any_schema_version and not is_known_to_be_ours(connection):
                with begin(connection):
                    require_primary(is_standby=is_standby(connection), database=self.name)
                    installed = installed_version(connection)
                require_version(connection, installed, database=self.name)
            yield connection

    @contextmanager
    def transaction(
        self,
        isolation: Isolation = "READ COMMITTED",
        *,
        lock_timeout_ms: int = DEFAULT_LOCK_TIMEOUT_MS,
        idle_timeout_ms: int = IDLE_TIMEOUT_MS,
        any_schema_version: bool = False,
    ) -> Generator[Connection]:
        """One transaction on a connection of its own, committed at the end unless the block raises.

        Args:
            isolation: Of the transaction.
            lock_timeout_ms: The longest wait for a lock.
            idle_timeout_ms: The longest that the transaction may wait for this process.
            any_schema_version: As for `connection`.

        Raises:
            SchemaVersionError: Schema `recon` is of another version, or missing.
            ReconError: The driver reported an error.
        """
        with (
            self.connection(any_schema_version=any_schema_version) as connection,
            begin(connection, isolation, lock_timeout_ms=lock_timeout_ms, idle_timeout_ms=idle_timeout_ms),
        ):
            yield connection


def _send_arrays_in_binary(driver: psycopg.Connection, _record: object) -> None:
    """As text, an array of timestamps takes ten times as long."""
    driver.adapters.register_dumper(list, ListBinaryDumper)


def open_database(settings: Settings, *, keeps_connection: bool = False) -> BillingDatabase:
    """The billing database that the settings name, or the embedded one."""
    url = settings.database_url or embedded_postgres.billing_url()
    return BillingDatabase(url, keeps_connection=keeps_connection, event_identity=settings.event_identity)


def declared_identity(connection: Connection) -> EventIdentity:
    """The event identity of the log, as its owner declares it."""
    return connection.get_execution_options().get(_IDENTITY, _DEFAULT_IDENTITY)


@contextmanager
def begin(
    connection: Connection,
    isolation: Isolation = "READ COMMITTED",
    *,
    lock_tables: Sequence[str] = (),
    lock_timeout_ms: int = DEFAULT_LOCK_TIMEOUT_MS,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_timeout_ms: int = IDLE_TIMEOUT_MS,
) -> Generator[None]:
    """A transaction on an open connection, with our settings. Driver errors pass through as they are.

    Args:
        connection: Not in a transaction.
        isolation: Of the transaction.
        lock_tables: Names of tables, locked `in access share mode` before the first snapshot, so that no session
            rewrites or truncates them before the transaction ends.
        lock_timeout_ms: The longest wait for a lock.
        statement_timeout_ms: The longest that a statement may take.
        idle_timeout_ms: The longest that the transaction may wait for this process.

    Raises:
        PutOffError: Another session has one of the tables locked.
    """
    connection.execution_options(isolation_level=isolation)
    with connection.begin():
        limits = (lock_timeout_ms, statement_timeout_ms, idle_timeout_ms)
        connection.exec_driver_sql(";".join(settings_of_transaction(connection, *limits)))
        if lock_tables:
            _lock(connection, lock_tables)
        yield


def settings_of_transaction(
    connection: Connection,
    lock_timeout_ms: int = DEFAULT_LOCK_TIMEOUT_MS,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    idle_timeout_ms: int = IDLE_TIMEOUT_MS,
) -> list[str]:
    """The statements by which a transaction on this server begins, whatever its database or role sets for sessions."""
    settings = _SETTINGS.format(
        work_mem=WORK_MEM,
        lock_timeout_ms=lock_timeout_ms,
        statement_timeout_ms=statement_timeout_ms,
        idle_timeout_ms=idle_timeout_ms,
    )
    version: Any = connection.dialect.server_version_info
    return [*filter(None, map(str.strip, settings.split(";"))), *([_SINCE_17] if version >= (17,) else [])]


def database_id(connection: Connection) -> str:
    """Which database this is, whatever host name or pooler a connection uses."""
    return connection.execute(statement("database_id")).scalar_one()


def limit_waits(connection: Connection, *, lock_timeout_ms: int, statement_timeout_ms: int) -> None:
    """Set other limits for the rest of the transaction."""
    connection.exec_driver_sql(
        f"set local lock_timeout = {lock_timeout_ms}; set local statement_timeout = {statement_timeout_ms}"
    )


def _lock(connection: Connection, tables: Sequence[str]) -> None:
    try:
        connection.exec_driver_sql(with_name("lock_tables", f"lock table {', '.join(tables)} in access share mode"))
    except DBAPIError as error:
        if sqlstate(error) != LOCK_TIMED_OUT:
            raise
        raise PutOffError(
            f"The run was put off: another session has locked {' or '.join(tables)}, for example a migration.",
            fix="Nothing, the next run tries again. If it stays: look in pg_locks for an AccessExclusiveLock on these "
            "tables and in pg_stat_activity for its transaction; let migrations set a lock_timeout.",
        ) from error
