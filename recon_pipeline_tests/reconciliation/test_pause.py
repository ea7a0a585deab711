"""While repairs are paused nothing is written, whatever a run was about to do; detection and checks go on."""

from datetime import timedelta

import psycopg
import pytest

from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.counters.pause import Pause, pause_repairs, read_pause, resume_repairs
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until, wait_until_blocked
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(12)
USED, COUNTED = 10, 3


@pytest.fixture
def drifted(job_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Twelve customers who have used 10 and are counted 3; a chunk has two to four of them."""
    monkeypatch.setattr(repair_module, "CHUNK_KEYS", 4)
    for customer in CUSTOMERS:
        job_billing.record(customer, USED)
        job_billing.set_counter(customer, COUNTED)
    return job_billing


def pause(billing: Billing, *, lasts: timedelta | None = None) -> Pause | None:
    """Pause repairs as `recon pause` does; returns the pause that was in force."""
    with BillingDatabase(billing.url).connection() as connection:
        with begin(connection):
            until = now(connection) + lasts if lasts is not None else None
        return pause_repairs(connection, reason="INC-1: restoring", paused_by="ada", until=until)


def resume(billing: Billing) -> Pause | None:
    with BillingDatabase(billing.url).connection() as connection:
        return resume_repairs(connection, reason=None, resumed_by="ada")


def in_force(billing: Billing) -> Pause | None:
    with BillingDatabase(billing.url).transaction() as connection:
        return read_pause(connection)


def repaired(billing: Billing) -> int:
    return len(billing.ledger())


def assert_whole(billing: Billing) -> None:
    """Every counter that is right has its one ledger row, every other is as it was."""
    done = {row[0] for row in billing.ledger()}
    assert billing.counters() == {customer: USED if customer in done else COUNTED for customer in CUSTOMERS}


def test_a_run_while_paused_detects_changes_nothing_and_says_who_paused_and_why(drifted: Billing) -> None:
    pause(drifted)

    result = run_assets()

    assert result.success
    assert repaired(drifted) == 0
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, COUNTED)
    check = result.check("counters_match_event_sums")
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert "12 counters of 2025-05 differ" in (check.description or "")
    assert "repairs are paused by ada" in (check.description or "")
    assert "INC-1: restoring" in str(check.metadata["paused"].value)
    (record,) = drifted.query(
        "select outcome, drift_count, rows_repaired, mismatch_count, paused_reason from recon.reconciliation_run"
    )
    assert record[:4] == ("paused", 12, 0, 12)
    assert "by ada" in record.paused_reason

    assert run_assets(while_paused=True).success
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, USED)


def test_a_pause_with_nothing_to_repair_leaves_a_clean_run(job_billing: Billing) -> None:
    job_billing.record("a", USED)
    pause(job_billing)

    assert run_assets().check("counters_match_event_sums").passed
    assert job_billing.value("select outcome from recon.reconciliation_run") == "clean"


def test_drift_that_came_after_the_comparison_is_an_error_also_while_paused(drifted: Billing) -> None:
    pause(drifted)
    run = new_run(drifted.url)
    run.compare()
    run.repair()
    drifted.add_event("late", 5)

    answer = run.verify()

    assert (answer.mismatch_count, answer.untouched_count) == (13, 12)
    assert answer.sample[0].gateway_customer_id == "late"


def test_a_pause_between_detection_and_repair_lets_no_chunk_be_written(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    pause(drifted)

    outcome = run.repair()

    assert (outcome.repaired, outcome.untouched) == (0, 12)
    assert outcome.pause is not None
    assert outcome.pause.reason == "INC-1: restoring"
    assert repaired(drifted) == 0


def repaired_once_paused(billing: Billing) -> int:
    """Pause repairs; returns how many counters were repaired when that returned."""
    pause(billing)
    return repaired(billing)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_pause_that_comes_while_a_chunk_begins_is_waited_for_or_seen(drifted: Billing, moment: str) -> None:
    run = new_run(drifted.url)
    run.compare()
    written_at_return: list[int] = []

    with background() as start:

        def pause_now() -> None:
            start(lambda: written_at_return.append(repaired_once_paused(drifted)))
            wait_until(lambda: in_force(drifted) is not None)
            if moment == "after":
                wait_until_blocked(drifted, PRODUCT)

        hooks = {"enter_chunk": pause_now}
        outcome = run.repair(before=hooks) if moment == "before" else run.repair(after=hooks)

    assert outcome.pause is not None
    assert written_at_return == [0]
    assert repaired(drifted) == 0


def test_a_pause_in_the_middle_of_a_chunk_returns_after_that_chunk_and_before_any_other(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    written_at_return: list[int] = []

    with background() as start:

        def pause_now() -> None:
            start(lambda: written_at_return.append(repaired_once_paused(drifted)))
            wait_until_blocked(drifted, PRODUCT)
            assert written_at_return == [], "the chunk at work has not committed"

        outcome = run.repair(after={"repair_locked_counters": pause_now})

    assert 0 < outcome.repaired < len(CUSTOMERS)
    assert written_at_return == [outcome.repaired]
    assert_whole(drifted)
    resume(drifted)
    reconcile(drifted.url)
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, USED)


def test_a_pause_stops_a_repair_that_waits_for_a_locked_counter(drifted: Billing) -> None:
    drifted.touch_counters()
    run = new_run(drifted.url)
    run.compare()
    with drifted.session() as holder:
        holder.query("select from billing_usage_counters for update")
        outcome = run.repair(on_progress=lambda done: pause(drifted) if done == len(CUSTOMERS) else None)

    assert (outcome.repaired, outcome.untouched) == (0, 12)


def test_pausing_and_repairing_again_and_again_never_writes_after_the_pause_returned(drifted: Billing) -> None:
    with background() as start:
        for _ in range(8):
            for customer in CUSTOMERS:
                drifted.set_counter(customer, COUNTED)
            work = start(reconcile, drifted.url)
            pause(drifted)
            at_return = repaired(drifted)
            work.result()
            assert repaired(drifted) == at_return
            resume(drifted)


def test_a_pause_ends_by_the_clock_of_the_database(drifted: Billing) -> None:
    pause(drifted, lasts=timedelta(milliseconds=300))
    paused = in_force(drifted)
    assert paused is not None
    assert paused.until is not None
    wait_until(lambda: in_force(drifted) is None)

    assert reconcile(drifted.url).repaired == 12


def test_a_later_pause_replaces_an_earlier_one_and_one_resume_ends_both(drifted: Billing) -> None:
    assert pause(drifted, lasts=timedelta(hours=1)) is None
    before = pause(drifted)

    assert before is not None
    assert before.until is not None
    paused = in_force(drifted)
    assert paused is not None
    assert paused.until is None
    assert resume(drifted) == paused
    assert in_force(drifted) is None
    assert resume(drifted) is None
    assert [row.action for row in drifted.query("select action from recon.control order by id")] == [
        "pause", "pause", "resume",
    ]  # fmt: skip


def test_who_paused_and_why_can_not_be_changed_afterwards(drifted: Billing) -> None:
    pause(drifted)
    for change in ("update recon.control set reason = ''", "delete from recon.control", "truncate recon.control"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append only"):
            drifted.query(change)
