"""A run that is cut off anywhere, however it is cut off, leaves nothing half done; the next one finishes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import time_machine
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import Billing, connected, customers
from recon_pipeline_tests.reconciliation.conftest import PrivateServer
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, wait_until
from recon_pipeline_tests.simulation import pipeline, victim
from recon_pipeline_tests.simulation.pipeline import Ended, RunOptions
from recon_pipeline_tests.simulation.proxy import network

pytestmark = pytest.mark.long

CUSTOMERS = customers(9)
MOST_BOUNDARIES = 400
ROOT = Path(__file__).resolve().parents[2]
_OUR_SESSIONS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
_LEDGER = """
    select gateway_customer_id, usage_count_before, usage_count_after
    from recon.counter_repair where id > %s order by id
"""


@dataclass
class Incidents:
    """An application that goes on, and whose counters go wrong in every way there is, again and again."""

    billing: Billing
    numbers: Iterator[int] = field(default_factory=count)

    def happen(self) -> None:
        """Each customer uses something; then some counters are off, gone, or of nobody."""
        billing, number = self.billing, next(self.numbers)
        for customer in CUSTOMERS:
            billing.record(customer, 3)
        billing.query(
            "update billing_usage_counters set usage_count = usage_count + %s where gateway_customer_id = any(%s)",
            number % 5 + 1, list(CUSTOMERS[:4]),
        )  # fmt: skip
        billing.query("delete from billing_usage_counters where gateway_customer_id = any(%s)", list(CUSTOMERS[4:6]))
        billing.add_event(CUSTOMERS[6], 2)
        billing.query(
            "delete from billing_usage_events where id in "
            "(select id from billing_usage_events where gateway_customer_id = %s limit 1)", CUSTOMERS[7],
        )  # fmt: skip
        billing.record(f"new_{number:04d}")
        billing.add_counter(f"nobody_{number:04d}", 5)
        billing.query("select pg_stat_force_next_flush()")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "CHUNK_KEYS", victim.CHUNK_KEYS)


def run(url: str, *, steering: pipeline.Steering | None = None, **asked: Any) -> Ended:
    """One run in this process."""
    database = BillingDatabase(url, keeps_connection=True)
    if steering is not None:
        pipeline.steer(database, steering)
    try:
        return pipeline.run(database, RunOptions(approve_reason="a test", **asked))
    finally:
        database.close()


@contextmanager
def accounted(billing: Billing) -> Iterator[None]:
    """What the block does to counters is what it writes into the ledger; it does nothing to the log."""
    before, known, log = billing.counters(), _last(billing), billing.log_checksum()
    yield
    _require_accounted(before, billing.counters(), billing.query(_LEDGER, known))
    assert billing.log_checksum() == log


@contextmanager
def whole_repairs(billing: Billing) -> Iterator[None]:
    """The same, and the next run finishes.

    Of each key the two of them together change the counter once, and to what the log says.
    """
    known = _last(billing)
    with accounted(billing):
        yield
    with accounted(billing):
        ended = run(billing.url)
        assert ended.outcome == "clean", ended
    repairs = billing.query(_LEDGER, known)
    assert len({row[0] for row in repairs}) == len(repairs), "a key was repaired twice"
    used = billing.event_sums()
    assert {customer: counted for customer, counted in billing.counters().items() if counted} == used


def _require_accounted(before: dict[str, int], after: dict[str, int], repairs: list[Any]) -> None:
    expected = dict(before)
    for customer, was, now in repairs:
        assert expected.get(customer) == was
        expected[customer] = now
    assert after == expected


def _last(billing: Billing) -> int:
    return billing.value("select coalesce(max(id), 0) from recon.counter_repair")


@pytest.fixture
def killing() -> Iterator[Callable[[str, int, str], str]]:
    """`killing(url, nth, mode)` runs the product in a process that is killed before its nth statement or commit."""
    with subprocess.Popen(
        [sys.executable, "-m", victim.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def kill(url: str, nth: int, mode: str) -> str:
            print(url, nth, mode, file=stdin, flush=True)
            line = stdout.readline().strip()
            assert stdout.readline() == "gone\n"
            return line

        yield kill
        stdin.close()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("mode", "step"), [("tick", 7), ("full", 21)])
def test_a_process_killed_before_any_statement_or_commit_leaves_whole_repairs_and_the_next_run_finishes(
    billing: Billing, killing: Callable[[str, int, str], str], mode: str, step: int
) -> None:
    incidents, killed_at = Incidents(billing), list[str]()
    for nth in range(1, MOST_BOUNDARIES, step):
        incidents.happen()
        with accounted(billing):
            killed_at.append(killing(billing.url, nth, mode))
            wait_until(lambda: billing.value(_OUR_SESSIONS, PRODUCT) == 0)
        if killed_at[-1].startswith(victim.ENDED):
            break
        if len(killed_at) % 5 == 0:  # in between, what one killed run has left meets the next one
            with whole_repairs(billing):
                pass

    assert killed_at[-1].startswith(f"{victim.ENDED} clean"), "the last run was not killed"
    assert "aggregates_match_events" not in run(billing.url, full=True).failed_checks


@pytest.mark.usefixtures("small_chunks")
def test_a_commit_whose_answer_is_lost_was_made_once_whichever_commit_it_is(billing: Billing) -> None:
    incidents = Incidents(billing)
    outcomes: list[str] = []
    for nth in range(1, MOST_BOUNDARIES):
        incidents.happen()
        with whole_repairs(billing), network(billing.url) as through:
            through.lose_answer_to = nth
            outcomes.append(run(through.url).outcome)
        if through.commits < nth:
            break

    assert outcomes[-1] == "clean", "the last run lost no answer"
    assert outcomes.count("failed") >= len(outcomes) - 3, "a lost connection was not reported"


@dataclass
class Strikes:
    """Does something before the nth statement or commit of a run."""

    nth: int
    strike: Callable[[], object]
    boundaries: int = 0

    def before_statement(self, connection: Connection, statement: pipeline.Statement) -> None:
        """One more."""
        self._count()

    def before_commit(self, connection: Connection) -> None:
        """One more."""
        self._count()

    def at_error(self, error: DBAPIError) -> None:
        """Errors stay what they are."""

    def _count(self) -> None:
        self.boundaries += 1
        if self.boundaries == self.nth:
            self.strike()


@pytest.mark.usefixtures("small_chunks")
def test_a_server_that_is_stopped_at_once_and_started_again_has_lost_nothing_that_was_repaired(
    private_server: PrivateServer,
) -> None:
    with private_server.billing() as billing:
        url = billing.url
        Incidents(billing).happen()
        assert run(url).outcome == "clean"

    for nth in (30, 55, 63, 75, 77, 80, 84, 110):
        with private_server.reopened(Billing(url, billing.connection)) as billing:
            Incidents(billing, count(nth)).happen()
            before, known = billing.counters(), _last(billing)
        assert run(url, steering=Strikes(nth, private_server.crash)).outcome == "failed"
        private_server.start()
        with private_server.reopened(billing) as billing:
            _require_accounted(before, billing.counters(), billing.query(_LEDGER, known))
            with whole_repairs(billing):
                pass


def kill_a_backend(url: str) -> None:
    """As the kernel does that runs out of memory: all sessions end, the server recovers, its statistics are gone."""
    with connected(url, autocommit=True) as killed, connected(url, autocommit=True) as other:
        os.kill(killed.info.backend_pid, signal.SIGKILL)
        wait_until(lambda: not _answers(other))  # by then the server knows, and accepts nobody until it has recovered
    wait_until(lambda: _accepts(url))


def _answers(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        return False
    return True


def _accepts(url: str) -> bool:
    try:
        with connected(url) as connection:
            return _answers(connection)
    except psycopg.OperationalError:
        return False


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("nth", [0, 10, 30, 63, 80])
def test_a_counter_deleted_before_a_backend_was_killed_is_found_by_the_next_tick_though_statistics_are_gone(
    private_server: PrivateServer, nth: int
) -> None:
    with private_server.billing() as billing:
        url = billing.url
        for customer in CUSTOMERS:
            billing.record(customer, 3)
        kill_a_backend(url)  # what is verified now is verified with statistics that begin anew
    for _ in range(2):
        assert run(url).outcome == "clean"
    with private_server.reopened(billing) as billing:
        billing.query("delete from billing_usage_counters where gateway_customer_id = %s", CUSTOMERS[4])
        billing.query("select pg_stat_force_next_flush()")
    if nth == 0:
        kill_a_backend(url)
    else:
        run(url, steering=Strikes(nth, partial(kill_a_backend, url)))

    assert run(url).outcome == "clean"
    with private_server.reopened(billing) as billing:
        assert billing.counters() == billing.event_sums()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("relation", ["recon.counter_repair", "recon.counter_drift", "recon.usage_aggregate"])
def test_a_disk_that_is_full_for_one_table_stops_its_writes_and_the_next_run_finishes(
    private_server: PrivateServer, relation: str
) -> None:
    with private_server.small_disk() as disk, private_server.billing() as billing:
        incidents = Incidents(billing)
        incidents.happen()
        ended = run(billing.url)
        assert ended.outcome == "clean", ended
        billing.query(f"alter table {relation} set tablespace {disk.tablespace}")
        disk.fill()
        ended = None
        for _ in range(40):  # there is room for some rows in the pages that the table has
            incidents.happen()
            incidents.happen()
            with whole_repairs(billing):
                ended = run(billing.url)
                disk.free()
            if ended.outcome != "clean":
                break
            disk.fill()

    assert ended is not None
    assert ended.outcome in ("failed", "not_clean")


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("hours", [-26, -3, 3, 26])
def test_a_client_whose_clock_is_hours_off_repairs_the_same(billing: Billing, hours: int) -> None:
    incidents = Incidents(billing)
    for _ in range(3):
        incidents.happen()
        with whole_repairs(billing), time_machine.travel(timedelta(hours=hours), tick=True):
            ended = run(billing.url)
        assert ended.outcome == "clean", ended

    off = "select max(abs(extract(epoch from started_at - now()))) from recon.reconciliation_run"
    assert billing.value(off) < 3_600, "times are the database's"
