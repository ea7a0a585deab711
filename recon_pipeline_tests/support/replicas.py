"""Two real servers with streaming replication: a primary, and a standby that a test promotes."""

import os
import pwd
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from recon_pipeline.embedded_postgres.cluster import PostgresCluster, socket_url
from recon_pipeline_tests.support.postgres import PostgresServer, throwaway_folder


@dataclass
class Replicas:
    """A primary and its standby; `failover` changes which is which, `rebuild` begins anew.

    Attributes:
        first: The host that a URL names first.
        second: The host that it names second.
    """

    first: PostgresCluster
    second: PostgresCluster

    def stop(self) -> None:
        """Stop both."""
        self.first.stop()
        self.second.stop()

    def url(self, database: str, *, standby_first: bool = False, parameters: str = "") -> str:
        """The plain URL with both hosts, as a person writes it."""
        hosts = [quote(str(cluster.start()), safe="/") for cluster in (self.first, self.second)]
        named = ",".join(reversed(hosts) if standby_first else hosts)
        return f"postgresql://postgres@/{quote(database)}?host={named}{parameters}"

    def of_first(self, database: str) -> str:
        """The plain URL of the first host alone."""
        return socket_url(self.first.start(), database)

    def of_second(self, database: str) -> str:
        """The plain URL of the second host alone."""
        return socket_url(self.second.start(), database)

    def create_database(self, name: str) -> None:
        """An empty one, on both as soon as the standby has caught up."""
        with psycopg.connect(self.of_first("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))

    def be_synchronous(self) -> None:
        """Let each commit wait until the standby has it, as a failover without loss needs."""
        with psycopg.connect(self.of_first("postgres"), autocommit=True) as connection:
            connection.execute("alter system set synchronous_standby_names = '*'")
            connection.execute("select pg_reload_conf()")

    def lose_primary(self) -> None:
        """The first machine loses its power."""
        stop_at_once(self.first)

    def promote(self) -> None:
        """The second takes writes from here on, and waits for no standby of its own."""
        control(self.second, "pg_ctl", "-D", str(self.second.folder), "-w", "promote")
        with psycopg.connect(self.of_second("postgres"), autocommit=True) as connection:
            connection.execute("alter system reset synchronous_standby_names")
            connection.execute("select pg_reload_conf()")


def control(cluster: PostgresCluster, program: str, *arguments: str) -> None:
    """Run one of the server's programs as its account."""
    cluster._run(program, list(arguments), doing=f"run {program} for {cluster.folder}")


def stop_at_once(cluster: PostgresCluster) -> None:
    """As a machine that loses its power."""
    control(cluster, "pg_ctl", "-D", str(cluster.folder), "-m", "immediate", "-w", "stop")


@contextmanager
def replicas(postgres_server: PostgresServer) -> Generator[Replicas]:
    """Both, running, with the binaries of the session's server."""
    with psycopg.connect(postgres_server.url("postgres")) as connection:
        ((binaries,),) = connection.execute("select setting from pg_config where name = 'BINDIR'").fetchall()
        ((data,),) = connection.execute("select current_setting('data_directory')").fetchall()
    account = pwd.getpwuid(Path(data).stat().st_uid).pw_name if os.geteuid() == 0 else None
    with throwaway_folder() as folder:
        first, second = (PostgresCluster(Path(binaries), folder / name / "data", account) for name in ("one", "two"))
        for cluster in (first, second):
            cluster.folder.parent.mkdir(mode=0o755)
            cluster._give_to_account(cluster.folder.parent)
        first.initialise()
        with (first.folder / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nfull_page_writes = off\nwal_keep_size = 64MB\n")
        source = first.start()
        connect = f"host={source} port=5432 user=postgres"
        control(second, "pg_basebackup", "-d", connect, "-D", str(second.folder), "-R", "-c", "fast", "-X", "stream")
        (second.folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)  # of the first: its socket is in its folder
        pair = Replicas(first, second)
        second.start()
        try:
            yield pair
        finally:
            pair.stop()
