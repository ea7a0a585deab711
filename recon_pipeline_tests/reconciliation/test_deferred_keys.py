"""A counter that another session has locked is deferred and counted; no wait is endless, the next run repairs it."""

import pytest

from recon_pipeline.store.counters import chunks
from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.counters.chunks import WAITS_SECONDS
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until_blocked
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(5)
HELD = CUSTOMERS[2]
HOLD = "select from billing_usage_counters where gateway_customer_id = any(%s) for update"


@pytest.fixture
def drifted(job_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Five customers who have used 10 and are counted 3; waiting for a lock ends after 50 ms."""
    monkeypatch.setattr(chunks, "COUNTER_LOCK_TIMEOUT_MS", 50)
    for customer in CUSTOMERS:
        job_billing.record(customer, 10)
        job_billing.set_counter(customer, 3)
    return job_billing


def test_a_locked_counter_is_deferred_all_others_are_repaired_and_the_next_run_repairs_it(drifted: Billing) -> None:
    with drifted.session() as holder:
        holder.query(HOLD, [HELD])
        run = new_run(drifted.url)
        run.compare()
        outcome = run.repair()

    assert (outcome.repaired, outcome.deferred, outcome.failed) == (4, 1, 0)
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, 10) | {HELD: 3}
    answer = run.verify()
    assert (answer.mismatch_count, answer.deferred_count) == (1, 1)
    assert answer.sample[0].gateway_customer_id == HELD
    assert "lock timeout" in answer.sample[0].error

    assert reconcile(drifted.url).repaired == 1
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, 10)


def test_a_counter_that_is_locked_for_longer_than_the_run_waits_by_itself_is_deferred_and_no_failure(
    job_billing: Billing,
) -> None:
    """With the real limits: a wait that the time limit of the sum ended was reported as a sum that is too slow."""
    for customer in CUSTOMERS:
        job_billing.record(customer, 10)
        job_billing.set_counter(customer, 3)
    with job_billing.session() as holder:
        holder.query(HOLD, [HELD])
        run = new_run(job_billing.url)
        run.compare()
        outcome = run.repair()

    assert (outcome.repaired, outcome.deferred, outcome.failed) == (4, 1, 0)
    assert "lock timeout" in run.verify().sample[0].error


@pytest.mark.parametrize("touched", [True, False])
def test_a_deferred_counter_that_the_same_run_repairs_later_is_a_repaired_one(
    drifted: Billing, *, touched: bool
) -> None:
    run = new_run(drifted.url)
    run.compare()
    with drifted.session() as holder:
        holder.query(HOLD, [HELD])
        assert run.repair().deferred == 1
    if touched:
        drifted.touch_counters()

    outcome = run.repair()

    assert (outcome.repaired, outcome.deferred, outcome.in_sync) == (len(CUSTOMERS), 0, 0)
    assert set(drifted.outcomes().values()) == {"repaired"}


def test_a_missing_counter_that_is_being_inserted_for_long_is_deferred(drifted: Billing) -> None:
    drifted.add_event("new", 10)
    with drifted.session() as holder:
        holder.record("new", 5)
        outcome = reconcile(drifted.url)

    assert (outcome.repaired, outcome.deferred, outcome.failed) == (5, 1, 0)
    assert reconcile(drifted.url).repaired == 1
    assert drifted.counter("new") == 15


def test_the_job_warns_of_a_deferred_counter_and_does_not_call_it_an_error(drifted: Billing) -> None:
    with drifted.session() as holder:
        holder.query(HOLD, [HELD])
        result = run_assets()

    assert result.success
    check = result.check("counters_match_event_sums")
    assert (check.passed, check.severity.value) == (False, "WARN")
    assert check.metadata["deferred_count"].value == 1
    assert "the next run repairs them" in (check.description or "")
    assert drifted.query("select outcome, deferred_count, reconcile_failures from recon.reconciliation_run") == [
        ("not_clean", 1, 0)
    ]

    again = run_assets()
    assert again.check("counters_match_event_sums").passed


def test_a_counter_that_differs_for_another_reason_beside_a_deferred_one_is_an_error(drifted: Billing) -> None:
    drifted.query(
        "alter table billing_usage_counters add constraint not_this "
        "check (gateway_customer_id <> 'poison' or usage_count = 1)"
    )
    drifted.add_event("poison", 10)
    drifted.add_counter("poison", 1)
    with drifted.session() as holder:
        holder.query(HOLD, [HELD])
        result = run_assets()

    check = result.check("counters_match_event_sums")
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert (check.metadata["mismatch_count"].value, check.metadata["deferred_count"].value) == (2, 1)


def test_waiting_for_locked_counters_is_bounded_for_the_whole_run(drifted: Billing) -> None:
    ticks = iter(range(0, 10_000, int(WAITS_SECONDS) // 2))
    run = new_run(drifted.url)
    run.compare()
    with drifted.session() as holder, run.database.connection() as connection:
        holder.query(HOLD, CUSTOMERS)
        outcome = repair_module.repair(
            connection,
            run.question,
            drift_count=5,
            clock=lambda: float(next(ticks)),
        )

    assert outcome.deferred == len(CUSTOMERS)


def test_a_lock_on_the_whole_table_defers_and_does_not_hang(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    with drifted.session() as holder:
        holder.query("lock table billing_usage_counters in share row exclusive mode")
        outcome = run.repair()

    assert (outcome.repaired, outcome.deferred) == (0, len(CUSTOMERS))
    assert drifted.ledger() == []


def test_the_repair_has_no_counter_locked_while_it_waits_for_another(
    drifted: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "COUNTER_LOCK_TIMEOUT_MS", 20_000)
    run = new_run(drifted.url)
    run.compare()
    others = [customer for customer in CUSTOMERS if customer != HELD]
    with drifted.session() as holder, drifted.session() as application, background() as start:
        holder.query(HOLD, [HELD])

        def lock_the_others_then_let_go() -> None:
            wait_until_blocked(drifted, PRODUCT)
            application.query(f"{HOLD} nowait", others)
            holder.connection.commit()

        outcome = run.repair(on_progress=lambda _: start(lock_the_others_then_let_go))

    assert outcome.repaired == len(CUSTOMERS)
