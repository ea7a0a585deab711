"""The commands of the page on moving run as they stand there, in its order, on two real servers.

A comment `<!-- then: name -->` in the page names an entry of `BETWEEN`. Lines of `recon` run in this process, all
others in a shell.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recon_pipeline.embedded_postgres.cluster import PostgresCluster, socket_url
from recon_pipeline_tests.commands.conftest import CommandResult, OwnServer, make_billing_tables, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.acceptance import accept_usages
from recon_pipeline_tests.support.dagster import make_dagster_tables
from recon_pipeline_tests.support.postgres import throwaway_folder

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"
ROLES = ("recon_pipeline", "recon_pipeline_2")
_STEP = re.compile(r"<!-- then: (?P<between>[\w' ]+) -->|^```sh\n(?P<block>.*?)^```", re.DOTALL | re.MULTILINE)
_RECON = re.compile(r"(?P<variables>(?:[A-Z_]+=\S+ )*)recon (?P<arguments>.*)")
_BURN_TRANSACTIONS = "do $$begin for i in 1..3000 loop perform pg_current_xact_id(); commit; end loop; end$$"


class Story:
    """Where the page is: the variables that it uses, and what the commands said."""

    def __init__(self, old: OwnServer, new: PostgresCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        self.old = old
        self.new_url = lambda database: socket_url(new.start(), database)
        self.monkeypatch = monkeypatch
        self.said: list[CommandResult] = []
        monkeypatch.setenv("PATH", f"{new.binaries}:{os.environ['PATH']}")
        self.set(
            OWNER_URL=old.url("app"),
            DATABASE_URL=old.url("app").replace("postgres@", "recon_pipeline:choose-one@"),
            DAGSTER_PG_URL=old.url("history"),
            NEW_OWNER_URL=self.new_url("app"),
            NEW_DATABASE_URL=self.new_url("app").replace("postgres@", "recon_pipeline_2:the-new-one@"),
            NEW_DAGSTER_PG_URL=self.new_url("history"),
        )

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.monkeypatch.setenv(name, value)

    def run(self, block: str) -> None:
        """The lines of a block; a shell runs what lies between two commands of `recon`."""
        shell: list[str] = []
        for line in [*block.splitlines(), "recon"]:
            command = _RECON.fullmatch(line)
            if line != "recon" and command is None:
                shell.append(line)
                continue
            if shell:
                ended = subprocess.run(
                    ["bash", "-ec", "\n".join(shell)], capture_output=True, text=True, check=False, timeout=120
                )
                assert ended.returncode == 0, (shell, ended.stderr)
                shell = []
            if command is not None:
                given = dict(part.split("=", 1) for part in shlex.split(os.path.expandvars(command["variables"])))
                self.said.append(recon(*shlex.split(command["arguments"]), **given))
                assert self.said[-1].exit_code == 0, (line, self.said[-1].said)

    def billing(self, statements: str = "") -> dict[str, int]:
        """Run statements of the application, and return its counters."""
        with connected(os.environ["OWNER_URL"], autocommit=True) as connection:
            billing = Billing(os.environ["OWNER_URL"], connection)
            connection.execute(statements.encode())
            return billing.counters()

    def lose_increments(self, customer: str) -> None:
        with connected(os.environ["OWNER_URL"], autocommit=True) as connection:
            billing = Billing(os.environ["OWNER_URL"], connection)
            billing.record(customer, 10)
            billing.set_counter(customer, 4)


def a_newer_release(story: Story) -> None:
    """It keeps what this one knows nothing of, and has repaired meanwhile."""
    story.billing(
        "alter table recon.hold add column of_tomorrow text; update recon.schema_version set version_num = '0999'"
    )
    refused = recon("status")
    assert (refused.exit_code, "upgrade this package" in refused.said) == (1, True)
    story.lose_increments("b")


def the_new_login(story: Story) -> None:
    passwords = "".join(f"local all {role} scram-sha-256\n" for role in ROLES)
    story.old.write("pg_hba.conf", f"{passwords}local all all trust\n")
    story.billing("select pg_reload_conf()")
    story.set(
        DATABASE_URL=os.environ["DATABASE_URL"].replace("recon_pipeline:choose-one", "recon_pipeline_2:the-new-one")
    )
    story.lose_increments("c")


def the_new_server(story: Story) -> None:
    """The application too."""
    assert "refused the login" in recon("status", DATABASE_URL=os.environ["DATABASE_URL"].replace("_2:", ":")).said
    story.set(OWNER_URL=os.environ["NEW_OWNER_URL"], DATABASE_URL=os.environ["NEW_DATABASE_URL"])
    (found,) = [one for one in recon("doctor", "--json").json["findings"] if one["requirement"] == "transaction ids"]
    assert found["verdict"] != "pass", found
    story.lose_increments("d")


def the_new_storage(story: Story) -> None:
    story.set(DAGSTER_PG_URL=os.environ["NEW_DAGSTER_PG_URL"])
    story.lose_increments("e")


BETWEEN: dict[str, Callable[[Story], None]] = {
    "a newer release prepared the schema": a_newer_release,
    "every process has the new login": the_new_login,
    "everything uses the new server": the_new_server,
    "Dagster has the new storage": the_new_storage,
}


@pytest.fixture
def story(
    own_server: OwnServer, orchestrated: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Story]:
    """A billing database and Dagster's on one server, and empty ones on another."""
    monkeypatch.chdir(tmp_path)
    own_server.create_database("app", make_billing_tables)
    own_server.create_database("history", make_dagster_tables)
    with throwaway_folder() as folder:
        new = PostgresCluster(own_server.cluster.binaries, folder / "data", own_server.cluster.account)
        new.initialise()
        try:
            story = Story(own_server, new, monkeypatch)
            for name in ("app", "history"):
                with connected(story.new_url("postgres"), autocommit=True) as connection:
                    connection.execute(f"create database {name}".encode())
            own_server.psql(own_server.url("app"), recon("init", "--print").out)
            accept_usages(own_server.url("app"))
            story.billing(_BURN_TRANSACTIONS)
            story.lose_increments("a")
            assert recon("reconcile", "--all").exit_code == 0
            yield story
        finally:
            new.stop()
    own_server.write("pg_hba.conf", "local all all trust\n")
    with connected(own_server.url("postgres"), autocommit=True) as connection:
        connection.execute("select pg_reload_conf()")


def test_every_command_of_the_page_does_what_it_says(story: Story) -> None:
    steps = list(_STEP.finditer(PAGE.read_text(encoding="utf-8")))
    before_removal = story.billing()
    for step in steps:
        if step["between"]:
            BETWEEN[step["between"]](story)
        else:
            before_removal = story.billing()
            story.run(step["block"])

    assert {step["between"] for step in steps} - {None} == set(BETWEEN)
    assert story.billing() == before_removal == dict.fromkeys("abcde", 10)
    with connected(os.environ["OWNER_URL"], autocommit=True) as connection:
        left = connection.execute(
            "select (select count(*) from pg_namespace where nspname = 'recon')"
            " + (select count(*) from pg_roles where rolname like 'recon%')"
            " + (select count(*) from pg_attribute where attname = 'ingest_xid' and not attisdropped)"
            " + (select count(*) from pg_trigger where tgname like 'recon%')"
        ).fetchall()
    assert left == [(0,)]
    assert "recon_pipeline_2" not in Path("recon-ledger.sql").read_text(encoding="utf-8")
