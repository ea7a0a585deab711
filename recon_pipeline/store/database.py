"""The connection to the billing database: how it is opened, how its transactions behave, its name in a message.

Invariant: every transaction has bounded waits and UTC, and gives a pooled connection back as it was (a pooler in
transaction mode is fine: no session state, no server-side prepared statements).
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool, QueuePool

from recon_pipeline.core.database_url import for_psycopg, redacted
from recon_pipeline.store.failures import told
from recon_pipeline.store.statements import statement

Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

WORK_MEM = "128MB"
"""Enough for the hash aggregate of about a million keys: a tick that spills to disk takes four times as long."""

LOCK_TIMEOUT_MS = 2_000
STATEMENT_TIMEOUT_MS = 30 * 60 * 1_000
"""A comparison of a very large log may take minutes; nothing of ours may run on for ever."""


class BillingDatabase:
    """The application's database.

    Args:
        url: Any form of a Postgres URL; it may hold a password, which is never shown.
        keeps_connection: Use one connection again and again until `close`, which knows the tables already: for a run,
            whose statements are short.
    """

    def __init__(self, url: str, *, keeps_connection: bool = False) -> None:
        self.name = redacted(url)
        self.engine = create_engine(
            for_psycopg(url),
            poolclass=QueuePool if keeps_connection else NullPool,
            pool_pre_ping=keeps_connection,
            connect_args={
                "application_name": "recon_pipeline",
                "connect_timeout": 10,
                "prepare_threshold": None,
                "keepalives_idle": 30,
            },
        )

    def close(self) -> None:
        """Close a connection that was kept."""
        self.engine.dispose()

    @contextmanager
    def connection(self) -> Generator[Connection]:
        """One connection for several transactions, closed at the end.

        Raises:
            ReconError: In the three parts that a person needs, for whatever the driver reports.
        """
        with told(self.name), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def transaction(
        self, isolation: Isolation = "READ COMMITTED", *, lock_timeout_ms: int = LOCK_TIMEOUT_MS
    ) -> Generator[Connection]:
        """One transaction on a connection of its own, committed at the end unless the block raises.

        Raises:
            ReconError: In the three parts that a person needs, for whatever the driver reports.
        """
        with self.connection() as connection, begin(connection, isolation, lock_timeout_ms=lock_timeout_ms):
            yield connection


@contextmanager
def begin(
    connection: Connection,
    isolation: Isolation = "READ COMMITTED",
    *,
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
) -> Generator[None]:
    """A transaction on an open connection, with our settings. Driver errors pass through as they are."""
    connection.execution_options(isolation_level=isolation)
    with connection.begin():
        connection.execute(
            statement("session_settings"),
            {
                "work_mem": WORK_MEM,
                "lock_timeout": f"{lock_timeout_ms}ms",
                "statement_timeout": f"{statement_timeout_ms}ms",
            },
        )
        yield


def identity(connection: Connection) -> str:
    """Which database it is, whatever host name or pooler it is reached through."""
    return connection.execute(statement("database_identity")).scalar_one()
