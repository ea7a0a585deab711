"""The Postgres server from a wheel, used if `DATABASE_URL` is not set: for the demo and a first try.

Any number of processes may start it at once. Two files beside the data folder coordinate them, by locks that the
kernel releases for a killed process: `<folder>.lock`, locked while the server is started or stopped, and
`<folder>.users`, locked (shared) by every process that uses it. A process that passed `keep_running=False`, a
command such as `recon dev`, stops the server when it ends, unless another process still uses it. A killed command
leaves a running server, which the next start uses.
"""

import atexit
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import errors, sql

from recon_pipeline.embedded_postgres.binaries import (
    ROOTS_ACCOUNT,
    ROOTS_FOLDER,
    binaries_folder,
    ensure_account,
    open_to_all,
)
from recon_pipeline.embedded_postgres.cluster import EmbeddedPostgresError, PostgresCluster, socket_url
from recon_pipeline.embedded_postgres.data_folder import not_writable, prepare_parent, refuse_unusable

BILLING_DATABASE = "billing"
DAGSTER_DATABASE = "dagster"

_LOCK_SECONDS = 90

_log = logging.getLogger(__name__)
_users: dict[Path, int] = {}
"""Descriptor of our lock on `<folder>.users`, by data folder."""
_users_guard = threading.Lock()


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server.

    Attributes:
        folder: Its data folder.
        socket_folder: Where its socket is.
        cluster: The cluster that it serves.
    """

    folder: Path
    socket_folder: Path
    cluster: PostgresCluster

    def url(self, database: str) -> str:
        """The plain URL (`postgresql://`) of a database, which may not exist yet."""
        return socket_url(self.socket_folder, database)

    def ensure_database(self, name: str) -> str:
        """Create the database if it is not there; safe when several processes do it at once.

        Returns:
            Its plain URL.
        """
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            found = connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone()
            if found is None:
                try:
                    connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
                except (errors.DuplicateDatabase, errors.UniqueViolation):
                    _log.debug("Another process has created database %s.", name)
        return self.url(name)

    def stop(self) -> bool:
        """End our use of the server, and stop it unless another process uses it. May be called twice.

        Returns:
            Whether this call stopped it.
        """
        if self.folder not in _users:
            return False
        with _exclusively(self.folder):
            if not _leave(self.folder):
                return False
            users = os.open(_beside(self.folder, "users"), os.O_RDWR)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("The Postgres in %s is left running: another process uses it.", self.folder)
                return False
            finally:
                os.close(users)
            self.cluster.stop()
        return True


def default_data_folder() -> Path:
    """The default data folder: `.recon/postgres` in the project's folder.

    Root cannot run Postgres, and the account that does must be able to reach the data. If the project's folder
    is closed to others (a home folder), root's data is kept in `/var/lib` instead: a home folder must not be
    opened to all accounts.
    """
    folder = project_folder() / ".recon" / "postgres"
    if os.geteuid() == 0 and not open_to_all(folder.parent):
        return ROOTS_FOLDER / hashlib.sha256(os.fsencode(project_folder())).hexdigest()[:10] / "postgres"
    return folder


def project_folder() -> Path:
    """The checkout this package runs from, or the current working directory where it is installed."""
    checkout = Path(__file__).resolve().parent.parent.parent
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def ensure_running(*, folder: Path | None = None, major: int = 18, keep_running: bool) -> EmbeddedServer:
    """Create the data folder if it is missing, start the server if it is not running, and register as a user of it.

    Args:
        folder: The data folder; by default `default_data_folder()`.
        major: Major version of Postgres, 16 or 18.
        keep_running: False for the process that owns the server: it stops when this process ends, unless
            others use it. True for a process that only needs it now, such as a run.

    Raises:
        EmbeddedPostgresError: It cannot run there; the message says why and what to do.
    """
    data_folder = (folder or default_data_folder()).resolve()
    account = ROOTS_ACCOUNT if os.geteuid() == 0 else None
    prepare_parent(data_folder)
    refuse_unusable(data_folder, major)
    with _exclusively(data_folder):
        if account is not None:
            ensure_account(account)
        cluster = PostgresCluster(binaries_folder(major, account), data_folder, account)
        if not (data_folder / "PG_VERSION").exists():
            cluster.initialise()
            if folder is None and not data_folder.is_relative_to(project_folder()):
                _log.warning(
                    "The embedded Postgres keeps its data in %s: root cannot run Postgres, and the account "
                    "that does (%s) cannot enter %s.",
                    *(data_folder, account, project_folder()),
                )
        socket_folder = cluster.start()
        _join(data_folder)
    server = EmbeddedServer(data_folder, socket_folder, cluster)
    if not keep_running:
        atexit.register(_stop_at_exit, server, os.getpid())
    return server


def billing_url() -> str:
    """The plain URL of the billing database on the embedded server; both are created and started if necessary.

    Raises:
        EmbeddedPostgresError: The server cannot run.
    """
    return ensure_running(keep_running=True).ensure_database(BILLING_DATABASE)


def _stop_at_exit(server: EmbeddedServer, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # a forked child inherits the registration, not the ownership
        server.stop()


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")


@contextmanager
def _exclusively(folder: Path) -> Generator[None]:
    """Keep every other process and thread from starting or stopping this server."""
    try:
        descriptor = os.open(_beside(folder, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise not_writable(folder, error) from error
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(
                        f"For {_LOCK_SECONDS} s another process has been starting or stopping the Postgres "
                        f"in {folder}.",
                        fix="Wait for it or end it, then start again.",
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _join(folder: Path) -> None:
    with _users_guard:
        if folder not in _users:
            descriptor = os.open(_beside(folder, "users"), os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            _users[folder] = descriptor


def _leave(folder: Path) -> bool:
    with _users_guard:
        descriptor = _users.pop(folder, None)
    if descriptor is None:
        return False
    os.close(descriptor)
    return True
