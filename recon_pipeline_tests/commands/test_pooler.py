"""Debian's pgbouncer between the commands and the database, as installed beside a production server."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.parse import quote

import psycopg
import pytest

from recon_pipeline_tests.commands.conftest import OwnServer, make_billing_tables, migrate, recon
from recon_pipeline_tests.reconciliation.billing import Billing, connected
from recon_pipeline_tests.support.postgres import throwaway_folder

CONFIGURATION = """
[databases]
* = host={host} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
logfile = {folder}/pgbouncer.log
"""
WHY = ("--reason", "TICKET-9")
Pooled = Callable[..., str]


@pytest.fixture
def pooled(own_server: OwnServer) -> Iterator[Pooled]:
    """`pooled(url, mode="transaction", size=5)` gives the URL of a pooler in front of that database."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    account = own_server.cluster.account
    with ExitStack() as stack:

        def start(url: str, mode: str = "transaction", size: int = 5) -> str:
            folder = stack.enter_context(throwaway_folder())
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            written = folder / "pgbouncer.ini"
            written.write_text(
                CONFIGURATION.format(host=own_server.socket_folder, port=port, mode=mode, size=size, folder=folder)
            )
            if account is not None:
                owner = pwd.getpwnam(account)
                os.chown(folder, owner.pw_uid, owner.pw_gid)
                os.chown(written, owner.pw_uid, owner.pw_gid)
            process = stack.enter_context(
                subprocess.Popen(
                    [program, "-q", str(written)], user=account, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            )
            stack.callback(process.terminate)
            through = f"postgresql://app@127.0.0.1:{port}/{quote(url.partition('?')[0].rpartition('/')[2])}"
            deadline = time.monotonic() + 20
            while True:
                try:
                    psycopg.connect(through).close()
                    return through
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline, (folder / "pgbouncer.log").read_text()
                    time.sleep(0.05)

        yield start


@pytest.fixture
def unprepared(own_server: OwnServer) -> Iterator[Billing]:
    """A database with the application's tables alone."""
    url = own_server.create_database("pooled", make_billing_tables)
    with connected(url, autocommit=True) as connection:
        yield Billing(url, connection)


@pytest.mark.parametrize("size", [1, 5])
def test_init_refuses_a_pooler_in_transaction_mode_before_anything_is_changed(
    unprepared: Billing, pooled: Pooled, size: int
) -> None:
    through = pooled(unprepared.url, size=size)

    with ExitStack() as stack:
        others = [stack.enter_context(psycopg.connect(through, autocommit=True)) for _ in range(3)]
        refused = recon("init", DATABASE_URL=through)
        limits = {other.execute("show statement_timeout").fetchone() for other in others}

    assert refused.exit_code == 1
    assert "is a pooler in transaction mode" in refused.said
    assert "Nothing was changed." in refused.said
    assert "set DATABASE_URL to the server itself or to the pooler in session mode" in refused.said
    assert limits == {("0",)}, "the server's default, which nobody has changed"
    assert unprepared.value("select to_regnamespace('recon') is null")


def test_init_works_through_a_pooler_in_session_mode(unprepared: Billing, pooled: Pooled) -> None:
    output = recon("init", DATABASE_URL=pooled(unprepared.url, mode="session"))

    assert output.exit_code == 0, output.said
    assert "Runs will be incremental" in output.said


@pytest.mark.usefixtures("orchestrated")
def test_everything_but_init_works_through_a_pooler_in_transaction_mode(
    own_server: OwnServer, pooled: Pooled, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_server.create_database("pooled", migrate)
    with connected(url, autocommit=True) as connection:
        billing = Billing(url, connection)
        billing.add_event("a", 60)
        billing.add_counter("b", 60)
        monkeypatch.setenv("DATABASE_URL", f"{pooled(url)}?pgbouncer=true&connection_limit=1")

        reconciled = recon("reconcile", "--period", "2025-05", "--json")
        assert reconciled.exit_code == 0, reconciled.said
        assert billing.counters() == {"a": 60, "b": 0}
        findings = {one["requirement"]: one["verdict"] for one in recon("doctor", "--json").json["findings"]}
        assert findings["connection"] == findings["schema recon"] == "pass"
        for command in (
            ("hold", "--customer", "a", "--customer", "b", *WHY, "--until", "3d"),
            ("undo", reconciled.json["run_id"], *WHY),
            ("release", "--customer", "a", "--customer", "b", *WHY),
            ("pause", *WHY),
            ("resume", *WHY),
            ("reconcile", "--all", "--full"),
            ("explain", "--customer", "a", "--period", "2025-05"),
            ("status",),
        ):
            output = recon(*command)
            assert output.exit_code == 0, output.said
        assert billing.counters() == {"a": 60, "b": 0}
