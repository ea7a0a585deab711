"""The command `recon` in this process, with billing databases of a test's own and one Dagster instance for all."""

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from dagster import DagsterInstance
from dagster._daemon.types import DaemonHeartbeat
from psycopg import sql

from recon_pipeline.embedded_postgres.cluster import PostgresCluster, socket_url
from recon_pipeline.faces.cli import main
from recon_pipeline.faces.init import prepare
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.acceptance import accept_usages
from recon_pipeline_tests.support.dagster import DAGSTER_YAML, make_dagster_tables
from recon_pipeline_tests.support.postgres import PostgresServer, create_filled, throwaway_folder
from recon_pipeline_tests.support.receivers import Mailbox, Webhook, mailbox, webhook

MakeBilling = Callable[..., Billing]


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its exit code and both of its streams."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; fails where there is anything beside it."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def said(self) -> str:
        """Both streams in one line, wherever lines were wrapped."""
        return " ".join((self.out + self.err).split())


def recon(*arguments: str, **variables: str | None) -> CommandResult:
    """Run the command in this process, with these environment variables (None takes one away)."""
    result = CliRunner().invoke(main, list(arguments), env=variables)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return CommandResult(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def dagster_environment(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What names one Dagster instance, shared by all tests here: a run is found by its id."""
    home = tmp_path_factory.mktemp("dagster_home")
    shutil.copy(DAGSTER_YAML, home)
    url = postgres_server.create_database(postgres_server.template("dagster", make_dagster_tables))
    return {"DAGSTER_HOME": str(home), "DAGSTER_PG_URL": url}


@pytest.fixture
def orchestrated(dagster_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands find the shared Dagster instance."""
    for name, value in dagster_environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def run_history(orchestrated: None) -> Iterator[DagsterInstance]:
    """The shared Dagster instance."""
    with DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def make_billing(
    postgres_server: PostgresServer, orchestrated: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeBilling]:
    """`make_billing(sql="", template="prepared", encoding=None)` gives a database that DATABASE_URL then names."""
    fill = {"prepared": migrate, "prepared_full": migrate_without_ingest_xid, "billing": make_billing_tables}
    with ExitStack() as opened:

        def make(statements: str = "", *, template: str | None = "prepared", encoding: str | None = None) -> Billing:
            made = postgres_server.template(template, fill[template]) if template and not encoding else None
            url = postgres_server.create_database(made, encoding=encoding)
            if template and encoding:
                fill[template](url)
            monkeypatch.setenv("DATABASE_URL", url)
            connection = opened.enter_context(connected(url, autocommit=True))
            connection.execute(statements.encode())
            return Billing(url, connection)

        yield make


@pytest.fixture
def billing(make_billing: MakeBilling) -> Billing:
    """A prepared database that DATABASE_URL names."""
    return make_billing()


@pytest.fixture
def hook() -> Iterator[Webhook]:
    """A web server that takes alerts."""
    with webhook() as running:
        yield running


@pytest.fixture
def box() -> Iterator[Mailbox]:
    """A mail server that takes alerts."""
    with mailbox() as running:
        yield running


_MADE_DATABASES = (
    "select datname from pg_database where not datistemplate and datname <> 'postgres' and datname not like 'filled%'"
)
_MADE_ROLES = "select rolname from pg_roles where not rolsuper and rolname not like 'pg@_%' escape '@'"


@dataclass
class OwnServer:
    """A small Postgres that a test may stop, lock with passwords, and give roles to."""

    cluster: PostgresCluster
    socket_folder: Path

    def url(self, database: str) -> str:
        """The plain URL of a database, as superuser."""
        return socket_url(self.socket_folder, database)

    def create_database(self, name: str, fill: Callable[[str], None] | None = None) -> str:
        """A fresh database; one of that name is dropped first."""
        with connected(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
            if fill is None:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        if fill is not None:
            create_filled(self.url, name, fill)
        return self.url(name)

    def forget(self) -> None:
        """Drop the databases and roles that tests made, but for the databases from which others are copied."""
        with connected(self.url("postgres"), autocommit=True) as connection:
            for (database,) in connection.execute(_MADE_DATABASES).fetchall():
                connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database)))
            # All at once, as a role that has granted another cannot be dropped before that one.
            roles = [sql.Identifier(role) for (role,) in connection.execute(_MADE_ROLES).fetchall()]
            if roles:
                connection.execute(sql.SQL("drop role {}").format(sql.SQL(", ").join(roles)))

    def psql(self, url: str, script: str) -> None:
        """Run a script as a person would, one statement after the other, up to the first error."""
        psql = [str(self.cluster.binaries / "psql"), url, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]
        ended = subprocess.run(psql, input=script, capture_output=True, text=True, check=False, timeout=60)
        assert ended.returncode == 0, ended.stderr

    def stop(self) -> None:
        """Stop it; every connection is ended."""
        self.cluster.stop()

    def start(self) -> None:
        """Start it where it was."""
        self.cluster.start()

    def write(self, name: str, text: str) -> None:
        """Write a file of the data folder."""
        path = self.cluster.folder / name
        path.write_text(text)
        owner = self.cluster.folder.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


@pytest.fixture(scope="session")
def own_cluster(postgres_server: PostgresServer) -> Iterator[PostgresCluster]:
    """The data folder of `own_server`, with the binaries of the session's server."""
    with connected(postgres_server.url("postgres")) as connection:
        ((binaries,),) = connection.execute("select setting from pg_config where name = 'BINDIR'").fetchall()
        ((data,),) = connection.execute("select current_setting('data_directory')").fetchall()
    if not (Path(binaries) / "initdb").exists() or not Path(data).exists():
        pytest.skip("the server's binaries are not on this machine")
    account = pwd.getpwuid(Path(data).stat().st_uid).pw_name if os.geteuid() == 0 else None
    with throwaway_folder() as folder:
        cluster = PostgresCluster(Path(binaries), folder / "data", account)
        cluster.initialise()
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nfull_page_writes = off\n")
        yield cluster
        cluster.stop()


@pytest.fixture
def own_server(own_cluster: PostgresCluster) -> OwnServer:
    """A server of the tests' own, running as a primary, without what an earlier test made there."""
    (own_cluster.folder / "standby.signal").unlink(missing_ok=True)
    server = OwnServer(own_cluster, own_cluster.start())
    server.forget()
    return server


def beating_daemon(instance: DagsterInstance, *, at: datetime | None = None) -> None:
    """What a live daemon leaves behind: the scheduler's heartbeat, of now or of another time."""
    beat = DaemonHeartbeat((at or datetime.now(UTC)).timestamp(), "SCHEDULER", daemon_id="tests", errors=[])
    instance.add_daemon_heartbeat(beat)


def make_billing_tables(url: str) -> None:
    """Create the application's tables and recorder."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute((resources.files("recon_pipeline.store.log") / "billing_tables.sql").read_bytes())


def prepared_template(server: PostgresServer) -> str:
    """The template of a database that `recon init` has prepared, whose runs may repair."""
    return server.template("prepared", migrate)


def migrate(url: str) -> None:
    """The same, prepared as `recon init` does."""
    make_billing_tables(url)
    prepare(BillingDatabase(url), with_billing_tables=False)
    accept_usages(url)


def migrate_without_ingest_xid(url: str) -> None:
    """The same, with the log left as it is: runs are in full mode."""
    make_billing_tables(url)
    prepare(BillingDatabase(url), with_billing_tables=False, with_ingest_xid=False)
    accept_usages(url)
