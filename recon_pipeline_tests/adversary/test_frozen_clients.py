"""No wait is without a bound: our process freezes, or its network is cut, while it has counters locked.

An increment of the application still gets its lock within five seconds; a repair and a preparation of the log go on in
a new session, anything else reports what happened to ours.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from recon_pipeline.embedded_postgres.cluster import socket_url
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.adversary.frozen import ENDED, HOLDING, counters_locked
from recon_pipeline_tests.adversary.world import BARE_LOG, World
from recon_pipeline_tests.commands.conftest import dagster_environment
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.traffic import background, wait_until
from recon_pipeline_tests.simulation.pipeline import Ended

__all__ = ["dagster_environment"]

LONGEST_WAIT_SECONDS = 5.0
CUSTOMERS = customers(12)


@pytest.fixture
def drifted(incremental: World) -> World:
    """Counters of 5 that are to be 12, in a database that the product knows."""
    incremental.begin_settled(CUSTOMERS)
    incremental.billing.query("update billing_usage_counters set usage_count = 5")
    return incremental


@contextmanager
def freezing(*arguments: str, environ: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """The process, stopped while it holds counters."""
    command = [sys.executable, "-m", "recon_pipeline_tests.adversary.frozen", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environ}
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.strip() == HOLDING:
                break
        else:
            raise AssertionError(f"it never held a counter over a statement: {''.join(lines)}")
        yield process
    finally:
        process.kill()
        process.wait()


def record_everywhere(world: World) -> float:
    """Record 1 for every customer; returns the longest that one took, in seconds."""
    longest = 0.0
    with world.billing.session(autocommit=True) as application:
        application.query(f"set statement_timeout = '{3 * LONGEST_WAIT_SECONDS}s'")
        for customer in CUSTOMERS:
            began = time.monotonic()
            application.record(customer, 1)
            longest = max(longest, time.monotonic() - began)
    return longest


def said_once_it_goes_on(process: "subprocess.Popen[str]") -> str:
    os.kill(process.pid, signal.SIGCONT)
    assert process.stdout is not None
    rest = process.stdout.read()
    return rest[rest.index(ENDED) :]


@pytest.mark.timeout(120)
def test_a_repair_that_freezes_with_locked_counters_keeps_no_increment_waiting_and_goes_on_after(
    drifted: World,
) -> None:
    with freezing(drifted.billing.url, "repair", environ={}) as process:
        longest = record_everywhere(drifted)
        result = said_once_it_goes_on(process)

    assert longest < LONGEST_WAIT_SECONDS
    assert result == f"{ENDED} clean\n"
    assert drifted.wrong() == []
    assert len(drifted.repaired()) == len(CUSTOMERS)


@pytest.mark.timeout(120)
def test_a_run_whose_process_was_killed_is_shown_as_failed_and_one_that_goes_on_as_running(drifted: World) -> None:
    billing = drifted.billing
    with freezing(billing.url, "repair", environ={}) as process:
        billing.query("update recon.reconciliation_run set step_started_at = step_started_at - interval '1 hour'")
        going_on = latest(drifted)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        session = "select from pg_stat_activity where pid = (select max(session_pid) from recon.reconciliation_run)"
        wait_until(lambda: not billing.query(session))

    assert (going_on.outcome, going_on.error) == ("running", None)
    assert latest(drifted).outcome == "failed"
    assert "its process ended before it closed the record" in (latest(drifted).error or "")
    assert drifted.run().outcome == "clean"


def latest(world: World) -> RunRecord:
    with BillingDatabase(world.billing.url).transaction() as connection:
        return max(runs.recent(connection, rows=10), key=lambda run: run.started_at)


@pytest.mark.timeout(120)
def test_an_undo_that_freezes_with_locked_counters_keeps_no_increment_waiting(
    drifted: World, dagster_environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = drifted.run()
    assert len(drifted.repaired()) == len(CUSTOMERS)
    hold_all(drifted, monkeypatch, dagster_environment)
    with freezing(drifted.billing.url, "undo", ended.run_id, environ=dagster_environment) as process:
        longest = record_everywhere(drifted)
        result = said_once_it_goes_on(process)

    assert longest < LONGEST_WAIT_SECONDS
    assert "idle" in result, result


@pytest.mark.timeout(120)
def test_a_preparation_of_the_log_that_freezes_while_it_alters_it_keeps_no_increment_waiting_and_goes_on_after(
    worlds: Callable[[str], World],
) -> None:
    world = worlds(BARE_LOG)
    world.fill(CUSTOMERS)
    with freezing(world.billing.url, "init", environ={}) as process:
        longest = record_everywhere(world)
        result = said_once_it_goes_on(process)

    assert longest < LONGEST_WAIT_SECONDS
    assert "Runs will be incremental" in result, result


def hold_all(world: World, monkeypatch: pytest.MonkeyPatch, environ: Mapping[str, str]) -> None:
    from recon_pipeline_tests.commands.conftest import recon

    for name, value in {**environ, "DATABASE_URL": world.billing.url}.items():
        monkeypatch.setenv(name, value)
    result = recon("pause", "--reason", "INC-1")
    assert result.exit_code == 0, result.said


@dataclass
class Cable:
    """A network to the server that can be cut without either side noticing.

    Attributes:
        url: The database, by way of this network.
        is_cut: Nothing passes any more, and nothing is closed.
    """

    url: str
    is_cut: threading.Event = field(default_factory=threading.Event)
    ends: list[socket.socket] = field(default_factory=list)

    def forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(65_536):
                if self.is_cut.is_set():
                    return
                target.sendall(received)
        if not self.is_cut.is_set():
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)


@contextmanager
def cable(url: str) -> Iterator[Cable]:
    """A cable to the server of this URL, which has a Unix socket; every connection on it is closed at the end."""
    parts = urlsplit(url)
    given = parse_qs(parts.query)
    target = str(Path(given["host"][0]) / f".s.PGSQL.{given.get('port', ['5432'])[0]}")
    with tempfile.TemporaryDirectory(prefix="recon-") as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(Path(folder) / ".s.PGSQL.5432"))
        listening.listen()
        made = Cable(socket_url(Path(folder), parts.path.removeprefix("/")))

        def serve() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    server = socket.socket(socket.AF_UNIX)
                    server.connect(target)
                    made.ends.extend((client, server))
                    for pair in ((client, server), (server, client)):
                        threading.Thread(target=made.forward, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield made
        finally:
            for end in (listening, *made.ends):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@pytest.mark.timeout(120)
def test_a_repair_whose_network_is_cut_with_locked_counters_keeps_no_increment_waiting(drifted: World) -> None:
    ended: list[Ended] = []
    with background() as start, cable(drifted.billing.url) as network:

        def cut_once_holding(_: int) -> None:
            if not network.is_cut.is_set() and counters_locked(drifted.billing.url):
                network.is_cut.set()

        start(
            lambda: ended.append(drifted.run(url=network.url, between=cut_once_holding, before_commit=cut_once_holding))
        )
        wait_until(network.is_cut.is_set, seconds=30)
        longest = record_everywhere(drifted)

    assert longest < LONGEST_WAIT_SECONDS
    assert [one.outcome for one in ended] == ["failed"]
    assert drifted.run().outcome == "clean"
    assert drifted.wrong() == []
