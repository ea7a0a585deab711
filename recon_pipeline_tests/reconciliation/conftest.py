"""Databases with the application's tables and the product's schema, each test its own."""

import os
import pwd
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.embedded_postgres.cluster import PostgresCluster, socket_url
from recon_pipeline.store.log.declared_key import refuses_repetitions
from recon_pipeline.store.log.ingest_xid_installation import install
from recon_pipeline.store.log.tables import EVENTS, describe_table
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records.migrate import upgrade
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.acceptance import accept_usages
from recon_pipeline_tests.support.postgres import PostgresServer, create_filled, throwaway_folder

DEFAULT_IDENTITY = EventIdentity()
MakeBilling = Callable[..., Billing]


@pytest.fixture
def make_billing(postgres_server: PostgresServer) -> Iterator[MakeBilling]:
    """`make_billing(sql="")` gives a fresh migrated database in which this SQL has run."""
    template = migrated_template(postgres_server)
    with ExitStack() as opened:

        def make(statements: str = "") -> Billing:
            url = postgres_server.create_database(template)
            connection = opened.enter_context(connected(url, autocommit=True))
            if statements:
                connection.execute(statements.encode())
                _make_incremental(url)
            return Billing(url, connection)

        yield make


@pytest.fixture
def billing(make_billing: MakeBilling) -> Billing:
    """A fresh migrated database with the tables as the product itself would make them."""
    return make_billing()


@pytest.fixture
def make_incremental_billing(make_billing: MakeBilling) -> MakeBilling:
    """The same as `make_billing`, and runs read the log in increments, whatever RECON_TEST_MODE says."""

    def make(statements: str = "") -> Billing:
        billing = make_billing(statements)
        if _is_full():
            install_increments(billing.url)
        return billing

    return make


@pytest.fixture
def incremental_billing(make_incremental_billing: MakeBilling) -> Billing:
    """The same as `billing`, and runs read the log in increments."""
    return make_incremental_billing()


@pytest.fixture
def job_billing(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """The same, and the environment names it, so that the Dagster job works on it and follows what leaves the log."""
    monkeypatch.setenv("DATABASE_URL", billing.url)
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "1000000")
    return billing


@pytest.fixture
def make_billing_in_mode(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBilling]:
    """`make_billing_in_mode(mode, sql="")` gives a fresh migrated database whose runs are `incremental` or `full`.

    The environment names it, and says nothing else: no event may leave its log unseen.
    """
    with ExitStack() as opened:

        def make(mode: str, statements: str = "") -> Billing:
            is_incremental = mode == "incremental"
            template = incremental_template if is_incremental else full_template
            url = postgres_server.create_database(template(postgres_server))
            connection = opened.enter_context(connected(url, autocommit=True))
            if statements:
                connection.execute(statements.encode())
                if is_incremental:
                    install_increments(url)
            monkeypatch.setenv("DATABASE_URL", url)
            return Billing(url, connection)

        yield make


def full_template(server: PostgresServer) -> str:
    """The template of a database with `make_tables`, whose log cannot be read in increments."""
    return server.template("full", make_tables)


def incremental_template(server: PostgresServer) -> str:
    """The template of the same, whose log can be."""
    return server.template("incremental", install_increments, on=full_template(server))


def migrated_template(server: PostgresServer) -> str:
    """The template of the same, whose log can be unless RECON_TEST_MODE is full."""
    return full_template(server) if _is_full() else incremental_template(server)


def migrate(url: str) -> None:
    make_tables(url)
    _make_incremental(url)


def make_tables(url: str) -> None:
    """The application's tables as the product itself would make them, and the product's schema."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((resources.files("recon_pipeline.store.log") / "billing_tables.sql").read_bytes())
    with BillingDatabase(url).connection(any_schema_version=True) as connection:
        upgrade(connection)
    accept_usages(url)


def _make_incremental(url: str) -> None:
    """Let runs read the log in increments where it can be, unless RECON_TEST_MODE is full."""
    if not _is_full():
        install_increments(url)


def _is_full() -> bool:
    return os.environ.get("RECON_TEST_MODE") == "full"


def install_increments(url: str, event_identity: EventIdentity = DEFAULT_IDENTITY) -> None:
    """Add to the log what lets runs read it in increments; one that cannot be is left as it is."""
    with BillingDatabase(url).connection() as connection:
        with begin(connection):
            events = describe_table(connection, EVENTS)
        if events is not None:
            install(connection, refuses_repetitions=refuses_repetitions(events, event_identity))


@dataclass
class SmallDisk:
    """A file system of a megabyte that Postgres uses as a tablespace."""

    folder: Path
    tablespace: str

    def fill(self) -> None:
        """Leave no room."""
        with (self.folder / "filling").open("wb", buffering=0) as filling, suppress(OSError):
            while True:
                filling.write(bytes(4_096))

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filling").unlink()


@dataclass
class PrivateServer:
    """A small Postgres of the same version as the session's, for one module to stop, start and turn into a standby."""

    cluster: PostgresCluster
    socket_folder: Path

    @contextmanager
    def billing(self) -> Iterator[Billing]:
        """A fresh migrated database; its connection may die with the server."""
        name = f"billing_{secrets.token_hex(4)}"
        create_filled(partial(socket_url, self.socket_folder), name, migrate)
        url = socket_url(self.socket_folder, name)
        with connected(url, autocommit=True) as connection:
            yield Billing(url, connection)

    @contextmanager
    def reopened(self, billing: Billing) -> Iterator[Billing]:
        """The same database on a new connection."""
        with connected(billing.url, autocommit=True) as connection:
            yield Billing(billing.url, connection)

    def stop(self) -> None:
        """Stop it; every connection is ended."""
        self.cluster.stop()

    def start(self) -> None:
        """Start it where it was."""
        self.cluster.start()

    def crash(self) -> None:
        """Stop it at once, as a machine that loses its power would; it recovers when it is started again."""
        self.cluster._run(
            "pg_ctl",
            ["-D", str(self.cluster.folder), "-m", "immediate", "-w", "stop"],
            doing=f"stop the Postgres in {self.cluster.folder} at once",
        )

    @contextmanager
    def small_disk(self) -> Iterator["SmallDisk"]:
        """A disk with a tablespace of its own; databases made meanwhile are gone at the end."""
        owner = self.cluster.folder.stat()
        with (
            throwaway_folder() as folder,
            connected(socket_url(self.socket_folder, "postgres"), autocommit=True) as ours,
        ):
            options = f"size=1m,uid={owner.st_uid},gid={owner.st_gid},mode=700"
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False)
            if mounted.returncode != 0:
                pytest.skip("mounting a small file system is not permitted here")
            try:
                disk = SmallDisk(folder, f"tiny_{secrets.token_hex(4)}")
                place = sql.Literal(str(folder))
                ours.execute(sql.SQL("create tablespace {} location {}").format(sql.Identifier(disk.tablespace), place))
                yield disk
                for (name,) in ours.execute("select datname from pg_database where datname like 'billing%'").fetchall():
                    ours.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
                ours.execute(sql.SQL("drop tablespace {}").format(sql.Identifier(disk.tablespace)))
            finally:
                subprocess.run(["umount", "--lazy", folder], check=True)

    def become_standby(self) -> None:
        """Start it again in recovery: it answers queries and takes no writes, as a standby does."""
        self.stop()
        signal = self.cluster.folder / "standby.signal"
        signal.touch()
        owner = self.cluster.folder.stat()
        os.chown(signal, owner.st_uid, owner.st_gid)
        self.start()


@pytest.fixture(scope="module")
def private_cluster(postgres_server: PostgresServer) -> Iterator[PostgresCluster]:
    with connected(postgres_server.create_database()) as connection:
        ((binaries,),) = connection.execute("select setting from pg_config where name = 'BINDIR'").fetchall()
        ((data,),) = connection.execute("select current_setting('data_directory')").fetchall()
    if not (Path(binaries) / "initdb").exists() or not Path(data).exists():
        pytest.skip("the server's binaries are not on this machine")
    account = pwd.getpwuid(Path(data).stat().st_uid).pw_name if os.geteuid() == 0 else None
    with throwaway_folder() as folder:
        cluster = PostgresCluster(Path(binaries), folder / "data", account)
        cluster.initialise()
        yield cluster
        cluster.stop()


@pytest.fixture
def private_server(private_cluster: PostgresCluster) -> PrivateServer:
    """A server of the test's own, running."""
    (private_cluster.folder / "standby.signal").unlink(missing_ok=True)
    return PrivateServer(private_cluster, private_cluster.start())
