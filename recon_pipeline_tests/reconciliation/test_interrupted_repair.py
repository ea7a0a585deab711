"""All or nothing: a repair that is cut off leaves whole chunks done, the rest untouched; the next run finishes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.core.errors import DatabaseUnreachableError
from recon_pipeline.store.counters import chunks
from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import runs
from recon_pipeline_tests.reconciliation import killable_repair
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.conftest import PrivateServer
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, wait_until
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(12)
USED, COUNTED = 10, 3
LOCKS_END_SECONDS = 5
LOCKED, WRITTEN = "lock_free_counters", "repair_locked_counters"
_OUR_SESSIONS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"
_END_OUR_SESSIONS = _OUR_SESSIONS.replace("count(*)", "pg_terminate_backend(pid)")
ROOT = Path(__file__).resolve().parents[2]


def let_drift(billing: Billing) -> None:
    for customer in CUSTOMERS:
        billing.record(customer, USED)
        billing.set_counter(customer, COUNTED)


def assert_whole_chunks_are_done(billing: Billing, done: int) -> None:
    """The first keys are repaired, each with its ledger row; the others are as they were."""
    assert billing.counters() == dict.fromkeys(CUSTOMERS[:done], USED) | dict.fromkeys(CUSTOMERS[done:], COUNTED)
    assert billing.ledger() == [(customer, "under", COUNTED, USED) for customer in CUSTOMERS[:done]]


def assert_next_run_finishes(billing: Billing) -> None:
    """Every key is right, and was changed by a repair exactly once."""
    reconcile(billing.url)
    assert billing.counters() == dict.fromkeys(CUSTOMERS, USED)
    assert sorted(billing.ledger()) == [(customer, "under", COUNTED, USED) for customer in CUSTOMERS]


@pytest.mark.parametrize("moment", [killable_repair.BETWEEN_CHUNKS, killable_repair.INSIDE_A_CHUNK])
def test_a_killed_process_leaves_whole_chunks_and_the_next_run_finishes(billing: Billing, moment: str) -> None:
    let_drift(billing)
    with subprocess.Popen(
        [sys.executable, "-m", killable_repair.__name__, billing.url, moment],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        done = int(process.stdout.readline())
        process.kill()
    wait_until(lambda: billing.value(_OUR_SESSIONS, PRODUCT) == 0)

    assert 0 < done < len(CUSTOMERS)
    assert_whole_chunks_are_done(billing, done)
    assert_next_run_finishes(billing)


def test_a_process_that_stood_still_inside_a_chunk_goes_on_in_a_new_session(billing: Billing) -> None:
    let_drift(billing)
    with subprocess.Popen(
        [sys.executable, "-m", killable_repair.__name__, billing.url, killable_repair.INSIDE_A_CHUNK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        done = int(process.stdout.readline())
        process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: billing.value(_OUR_SESSIONS, PRODUCT) == 0, seconds=LOCKS_END_SECONDS)
            assert_whole_chunks_are_done(billing, done)
        finally:
            process.send_signal(signal.SIGCONT)
        process.communicate(timeout=20)

    assert process.returncode == 0
    assert billing.counters() == dict.fromkeys(CUSTOMERS, USED)
    assert billing.ledger() == [(customer, "under", COUNTED, USED) for customer in CUSTOMERS]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair_module, "CHUNK_KEYS", 4)


def interrupt_repair(billing: Billing, interrupt: Callable[[], object], *, inside: str | None) -> list[int]:
    """Repair, and interrupt after the first chunk or right after this statement; returns how far it said it was."""
    run = new_run(billing.url)
    run.compare()
    reported: list[int] = []

    def note(done: int) -> None:
        reported.append(done)
        if inside is None:
            interrupt()

    with pytest.raises(DatabaseUnreachableError) as caught:
        run.repair(after={inside: interrupt} if inside else None, on_progress=note)
    assert "run again, finishes the work" in caught.value.changed
    assert "before stays" in caught.value.changed
    return reported


@pytest.mark.usefixtures("small_chunks")
def test_a_process_that_does_not_get_on_reports_that_its_session_was_ended_because_it_was_idle(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_drift(billing)
    begun = new_run(billing.url)
    begun.compare()
    original = chunks.Repairer._lock_and_repair
    stood_still: list[int] = []

    def stand_still(self: chunks.Repairer, *arguments: Any, **named: Any) -> set[int]:
        stood_still.append(1)
        repaired = original(self, *arguments, **named)
        time.sleep(1)
        return repaired

    monkeypatch.setattr(chunks, "CHUNK_IDLE_TIMEOUT_MS", 300)
    monkeypatch.setattr(chunks.Repairer, "_lock_and_repair", stand_still)

    with pytest.raises(DatabaseUnreachableError) as caught:
        begun.repair()

    assert "ended our session, because this process paused in the middle of a transaction" in str(caught.value)
    assert "run again, finishes the work" in caught.value.changed
    assert len(stood_still) == 1 + chunks.NEW_SESSIONS
    monkeypatch.undo()
    assert_next_run_finishes(billing)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("stood_still", [True, False], ids=["after it stood still", "at work"])
def test_a_process_that_finds_its_connection_gone_goes_on_in_a_new_session_if_it_stood_still(
    billing: Billing, monkeypatch: pytest.MonkeyPatch, stood_still: bool
) -> None:
    """The server's reason is lost if the connection is found broken while a statement is sent."""
    let_drift(billing)
    begun = new_run(billing.url)
    begun.compare()
    original = chunks.Repairer._lock_and_repair
    cut: list[int] = []

    def cut_off(self: chunks.Repairer, *arguments: Any, **named: Any) -> set[int]:
        repaired = original(self, *arguments, **named)
        if not cut:
            cut.append(1)
            time.sleep(0.3 if stood_still else 0)
            driver: Any = self.connection.connection.driver_connection
            with socket.socket(fileno=os.dup(driver.fileno())) as connected:
                connected.shutdown(socket.SHUT_RDWR)
        return repaired

    monkeypatch.setattr(chunks, "CHUNK_IDLE_TIMEOUT_MS", 200)
    monkeypatch.setattr(chunks.Repairer, "_lock_and_repair", cut_off)

    if stood_still:
        assert begun.repair().repaired == len(CUSTOMERS)
    else:
        with pytest.raises(DatabaseUnreachableError, match="the connection was lost"):
            begun.repair()
    assert_next_run_finishes(billing)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("inside", [LOCKED, WRITTEN, None])
def test_a_terminated_backend_is_reported_clearly_and_leaves_whole_chunks(billing: Billing, inside: str | None) -> None:
    let_drift(billing)

    reported = interrupt_repair(billing, lambda: billing.query(_END_OUR_SESSIONS, PRODUCT), inside=inside)

    assert_whole_chunks_are_done(billing, reported[-1] if reported else 0)
    assert_next_run_finishes(billing)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("inside", [LOCKED, WRITTEN, None])
def test_a_stopped_server_is_reported_clearly_and_leaves_whole_chunks(
    private_server: PrivateServer, inside: str | None
) -> None:
    with private_server.billing() as billing:
        let_drift(billing)
        reported = interrupt_repair(billing, private_server.stop, inside=inside)
    private_server.start()

    with private_server.reopened(billing) as again:
        assert_whole_chunks_are_done(again, reported[-1] if reported else 0)
        assert_next_run_finishes(again)


def test_a_server_that_is_stopped_fails_the_job_in_the_words_of_the_error(
    private_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with private_server.billing() as billing:
        billing.record("a", 1)
    monkeypatch.setenv("DATABASE_URL", billing.url)
    private_server.stop()

    result = run_assets()

    assert not result.success
    assert "could not be reached" in result.errors
    assert "What to do: Check that the server runs" in result.errors


@pytest.mark.usefixtures("small_chunks")
def test_the_record_of_a_run_that_failed_says_how_much_it_had_repaired(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_drift(billing)
    monkeypatch.setenv("DATABASE_URL", billing.url)
    original = chunks.Repairer.free_keys

    def cut_off(repairer: chunks.Repairer, chunk: range) -> list[int]:
        if chunk[0] > 1:
            billing.query(_END_OUR_SESSIONS, PRODUCT)
        return original(repairer, chunk)

    monkeypatch.setattr(chunks.Repairer, "free_keys", cut_off)
    run = run_assets()

    assert not run.success
    repaired = len(billing.ledger())
    assert 0 < repaired < len(CUSTOMERS)
    assert (run.record.outcome, run.record.rows_repaired) == ("failed", repaired)


def test_a_ledger_row_that_cannot_be_written_leaves_its_counter_as_it_was(billing: Billing) -> None:
    let_drift(billing)
    billing.query(
        f"alter table recon.counter_repair add constraint full_disk check (gateway_customer_id <> '{CUSTOMERS[5]}')"
    )

    outcome = reconcile(billing.url)

    assert (outcome.repaired, outcome.failed) == (len(CUSTOMERS) - 1, 1)
    assert billing.counter(CUSTOMERS[5]) == COUNTED


def test_a_step_that_is_run_again_under_the_same_run_id_repairs_each_key_once(billing: Billing) -> None:
    let_drift(billing)
    run = new_run(billing.url)
    run.compare()
    run.repair()

    run.compare()
    run.repair()

    assert len(billing.ledger()) == len(CUSTOMERS)
    with BillingDatabase(billing.url).transaction() as connection:
        record = runs.read(connection, run.question.run_id)
    assert record is not None
    assert (record.outcome, record.drift_count, record.rows_repaired) == ("running", 0, 0)


def test_a_repair_that_is_run_again_without_a_new_comparison_says_the_same_again(billing: Billing) -> None:
    let_drift(billing)
    billing.add_event("missing", USED)
    run = new_run(billing.url)
    run.compare()
    first = run.repair()

    assert run.repair() == first
    assert (first.repaired, first.in_sync) == (len(CUSTOMERS) + 1, 0)
    assert len(billing.ledger()) == len(CUSTOMERS) + 1


def test_a_repair_that_is_run_again_leaves_alone_what_drifted_again_since(billing: Billing) -> None:
    let_drift(billing)
    run = new_run(billing.url)
    run.compare()
    run.repair()
    billing.set_counter(CUSTOMERS[5], COUNTED)

    outcome = run.repair()

    assert (outcome.repaired, outcome.failed) == (len(CUSTOMERS), 0)
    assert billing.counter(CUSTOMERS[5]) == COUNTED, "this is for the next comparison to find"
    assert reconcile(billing.url).repaired == 1


@pytest.mark.usefixtures("small_chunks")
def test_a_comparison_that_is_made_again_after_a_part_was_repaired_numbers_no_key_like_a_repaired_one(
    billing: Billing,
) -> None:
    let_drift(billing)
    run = new_run(billing.url)
    run.compare()
    with pytest.raises(DatabaseUnreachableError):
        run.repair(on_progress=lambda _: billing.query(_END_OUR_SESSIONS, PRODUCT))
    done = len(billing.ledger())

    run.compare()
    outcome = run.repair()

    assert 0 < done < len(CUSTOMERS)
    assert (outcome.repaired, outcome.in_sync, outcome.failed) == (len(CUSTOMERS) - done, 0, 0)
    assert sorted(billing.ledger()) == [(customer, "under", COUNTED, USED) for customer in CUSTOMERS]
