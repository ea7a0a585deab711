"""The page on moving where the server is not ours alone: others use its roles, and the owner is no superuser."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from recon_pipeline_tests.commands.conftest import OwnServer, make_billing_tables, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected

PAGE = (Path(__file__).parents[2] / "docs" / "moving.md").read_text(encoding="utf-8")
PREPARE_SECOND = """
    revoke connect on database second from public;
    grant connect on database second to recon_pipeline;
"""
SECOND_LOGIN = """
    create role recon_pipeline_2 login password 'x' in role recon_pipeline;
    alter role recon_pipeline_2 set role = 'recon_pipeline';
"""
PRIVILEGES = """
    select count(*) from information_schema.table_privileges
    where grantee = 'recon_pipeline' and table_name like 'billing%'
"""


def blocks(heading: str, language: str) -> list[str]:
    """The blocks of a section of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.DOTALL | re.MULTILINE)


def shell(script: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person would."""
    return subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False, timeout=60)


def query(url: str, statements: str) -> None:
    with connected(url, autocommit=True) as connection:
        connection.execute(statements.encode())


@pytest.fixture
def server(own_server: OwnServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OwnServer:
    """A server with an installation in `app`, whose tables belong to a role that is no superuser."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{own_server.cluster.binaries}:{os.environ['PATH']}")
    query(own_server.url("postgres"), "create role tables_owner login createrole")
    install(own_server, "app")
    query(owner(own_server, "app"), SECOND_LOGIN)
    return own_server


def owner(server: OwnServer, database: str) -> str:
    return server.url(database).replace("postgres@", "tables_owner@")


def install(server: OwnServer, database: str) -> None:
    """As docs/privileges.md says."""
    server.create_database(database)
    query(server.url("postgres"), f"alter database {database} owner to tables_owner")
    make_billing_tables(owner(server, database))
    server.psql(owner(server, database), recon("init", "--print").out)


def test_taking_one_installation_out_leaves_the_other_one_its_roles_and_takes_the_last_ones_too(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(server, "second")
    query(owner(server, "second"), PREPARE_SECOND)
    monkeypatch.setenv("OWNER_URL", owner(server, "app"))
    take_out, drop_roles = blocks("Uninstall", "sh")
    (keep_roles,) = blocks("Uninstall", "sql")

    taken_out, refused = shell(take_out), shell(drop_roles)

    assert taken_out.returncode == 0, taken_out.stderr
    assert refused.returncode != 0
    assert 'role "recon_pipeline" cannot be dropped because some objects depend on it' in refused.stderr
    server.psql(owner(server, "app"), keep_roles)
    with connected(server.url("app")) as connection:
        assert Billing("", connection).value(PRIVILEGES) == 0
    second = server.url("second").replace("postgres@", "recon_pipeline_2:x@")
    output = recon("init", DATABASE_URL=second)
    assert output.exit_code == 0, output.said

    monkeypatch.setenv("OWNER_URL", owner(server, "second"))
    for block in (take_out, drop_roles):
        done = shell(block)
        assert done.returncode == 0, done.stderr
    with connected(server.url("postgres")) as connection:
        assert Billing("", connection).value("select count(*) from pg_roles where rolname like 'recon%'") == 0


def test_an_owner_who_is_no_superuser_moves_roles_that_can_log_in_by_what_the_page_says(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, logins, _ = blocks("Move the billing database", "sh")
    query(server.url("postgres"), "create database moved owner tables_owner")
    monkeypatch.setenv("OWNER_URL", owner(server, "app"))
    monkeypatch.setenv("NEW_OWNER_URL", owner(server, "moved"))
    monkeypatch.setenv("DATABASE_URL", server.url("app").replace("postgres@", "recon_pipeline_2:x@"))
    # The same server is the new one: its roles are as psql leaves them there.
    query(owner(server, "app"), "alter role recon_pipeline nologin; alter role recon_pipeline_2 nologin")

    copied = shell(copy.partition("\n")[2])

    assert copied.returncode == 0, copied.stderr
    assert re.search("permission denied to alter role|must be superuser", copied.stderr)
    moved = server.url("moved").replace("postgres@", "recon_pipeline_2:the-new-one@")
    assert "not permitted to log in" in recon("init", DATABASE_URL=moved).said
    logged_in = shell(logins)
    assert logged_in.returncode == 0, logged_in.stderr
    output = recon("init", DATABASE_URL=moved)
    assert output.exit_code == 0, output.said
