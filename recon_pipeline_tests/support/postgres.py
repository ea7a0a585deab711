"""The Postgres that the tests run on, and fresh databases on it.

`DATABASE_URL` names a server of one's own (its role needs CREATEDB); else one is made for the session: the
embedded 16 or 18, or Debian's 15, as `RECON_TEST_POSTGRES` says. A database costs some 15 ms, since it is a
copy of a template.
"""

import itertools
import os
import secrets
import shutil
import tempfile
from collections import ChainMap
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from recon_pipeline.core.database_url import for_libpq
from recon_pipeline.embedded_postgres import ensure_running
from recon_pipeline.embedded_postgres.cluster import PostgresCluster, socket_url

_DEBIAN_BINARIES = Path("/usr/lib/postgresql/15/bin")
_THROWAWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_ROOMY_BYTES = 4 * 2**30
# Half an hour off UTC and with daylight saving: whatever trusts the session's time zone fails here.
_AWKWARD_SETTINGS = {"timezone": "America/St_Johns"}


_servers: list["PostgresServer"] = []
"""Those that run for this process's tests."""


class PostgresServer:
    """A server on which databases are made freely; `drop_databases` removes all that were made here."""

    def __init__(self, url: str) -> None:
        """Take a plain URL of any database of the server that can be connected to.

        Templates that this process has made there before, in a session of pytest around this one, are found here.
        What is made here is not found there.
        """
        self._url = for_libpq(url)
        self._prefix = f"recon_test_{secrets.token_hex(4)}"
        self._numbers = itertools.count(1)
        self._templates: ChainMap[str, str] = ChainMap(
            {}, *(one._templates for one in _servers if one._url == self._url)
        )
        self._made: list[str] = []
        self._session: psycopg.Connection[Any] | None = None

    def url(self, database: str) -> str:
        """The plain URL of a database."""
        return urlsplit(self._url)._replace(path=f"/{database}").geturl()

    def create_database(self, template: str | None = None, *, encoding: str | None = None) -> str:
        """Make a database, empty or a copy of the template that `template()` returned.

        Args:
            template: What `template()` returned.
            encoding: Another one than the server's.

        Returns:
            Its plain URL.
        """
        name = f"{self._prefix}_{next(self._numbers)}"
        statement = sql.SQL("create database {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" template {} strategy file_copy").format(sql.Identifier(template))
        if encoding is not None:
            options = " template template0 encoding {} lc_collate 'C' lc_ctype 'C'"
            statement += sql.SQL(options).format(sql.Literal(encoding))
        self._execute(statement)
        self._made.append(name)
        return self.url(name)

    def template(self, name: str, fill: Callable[[str], None], *, on: str | None = None) -> str:
        """The template of that name, made once: `fill` is given the URL and leaves no connection open.

        Args:
            name: Of the template.
            fill: Fills it.
            on: What `template()` returned for another one; it is filled before with what that has.
        """
        if name not in self._templates:
            url = self.create_database(on)
            fill(url)
            self._templates[name] = urlsplit(url).path.removeprefix("/")
        return self._templates[name]

    def drop_database(self, url: str) -> None:
        """Drop one that was created here, even with open connections; for tests that create very many."""
        name = urlsplit(url).path.removeprefix("/")
        self._execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        self._made.remove(name)

    def drop_databases(self, *, made_since: int | None = None) -> None:
        """Drop the databases created here, even with open connections.

        Args:
            made_since: Leave alone so many that were made first, and templates; None: drop all.
        """
        kept = set[str]() if made_since is None else set(self._templates.values())
        for name in [name for name in self._made[made_since or 0 :] if name not in kept]:
            self.drop_database(self.url(name))

    @property
    def made_count(self) -> int:
        """How many databases were made here and are there."""
        return len(self._made)

    def _execute(self, statement: sql.Composed | sql.SQL) -> None:
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self._url, autocommit=True)
        self._session.execute(statement)


def is_of_session(url: str) -> bool:
    """Whether a URL leads straight to a server that runs for this process's tests, through its socket."""
    socket = urlsplit(url).query
    return bool(socket) and any(urlsplit(server._url).query == socket for server in _servers)


def create_filled(url: Callable[[str], str], name: str, fill: Callable[[str], None]) -> None:
    """Make a database on a server of a test's own, filled by `fill`: the first is kept there, the others are copies.

    Args:
        url: Gives the plain URL of a database of that server.
        name: Of the database.
        fill: Is given the URL and leaves no connection open.
    """
    kept = f"filled_by_{fill.__name__}"
    with psycopg.connect(url("postgres"), autocommit=True) as connection:
        if connection.execute("select from pg_database where datname = %s", [kept]).rowcount == 0:
            unfinished = f"{kept}_{secrets.token_hex(4)}"
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(unfinished)))
            fill(url(unfinished))
            rename = sql.SQL("alter database {} rename to {}")
            connection.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(kept)))
        copy = sql.SQL("create database {} template {} strategy file_copy")
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(kept)))


@contextmanager
def running_server(environ: Mapping[str, str]) -> Generator[PostgresServer]:
    """The server that the environment asks for."""
    if environ.get("DATABASE_URL"):
        given = PostgresServer(environ["DATABASE_URL"])
        _servers.append(given)
        try:
            yield given
        finally:
            _servers.remove(given)
            given.drop_databases()
        return
    major = environ.get("RECON_TEST_POSTGRES", "18")
    if major not in {"15", "16", "18"}:
        raise pytest.UsageError(f"RECON_TEST_POSTGRES is {major!r}; it is one of 15, 16, 18.")
    with throwaway_folder() as folder:
        if major == "15":
            cluster = _debian_cluster(folder / "data")
            cluster.initialise()
            url = socket_url(cluster.start(), "postgres")
            stop = cluster.stop
        else:
            server = ensure_running(folder=folder / "data", major=int(major), keep_running=False)
            url = server.url("postgres")
            stop = server.stop
        try:
            _configure(url)
            own = PostgresServer(url)
            _servers.append(own)
            yield own
            _servers.remove(own)
        finally:
            stop()


@contextmanager
def databases_dropped() -> Generator[None]:
    """Drop what is made meanwhile on the servers that run: thousands of databases fill the memory that they are in."""
    before = {id(server): server.made_count for server in _servers}
    yield
    for server in _servers:
        server.drop_databases(made_since=before.get(id(server), server.made_count))


@contextmanager
def throwaway_folder() -> Generator[Path]:
    """A folder with a short path, open to the account that runs Postgres for root; pytest's are closed."""
    folder = Path(tempfile.mkdtemp(prefix="recon-", dir=_roomiest_memory()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _roomiest_memory() -> str:
    """Memory where there is plenty, as a disk that is slow to copy databases makes the tests five times slower."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of a random name is made in it
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOMY_BYTES
    return str(memory) if roomy else "/tmp"  # noqa: S108


def _debian_cluster(folder: Path) -> PostgresCluster:
    if not (_DEBIAN_BINARIES / "initdb").exists():
        pytest.skip(f"RECON_TEST_POSTGRES is 15 and {_DEBIAN_BINARIES} is missing: apt-get install postgresql-15")
    return PostgresCluster(_DEBIAN_BINARIES, folder, "postgres" if os.geteuid() == 0 else None)


def _configure(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in (_THROWAWAY_SETTINGS | _AWKWARD_SETTINGS).items():
            connection.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        connection.execute("select pg_reload_conf()")
