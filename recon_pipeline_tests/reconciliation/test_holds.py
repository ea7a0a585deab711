"""Held keys are left alone and reported as held; once the hold has ended the next tick repairs them, however old."""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.counters.holds import Hold
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing, customers
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until, wait_until_blocked
from recon_pipeline_tests.support.assets import run_assets

CUSTOMERS = customers(6)
HELD = CUSTOMERS[2]
USED, COUNTED = 10, 3


@pytest.fixture
def drifted(job_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Six customers who have used 10 and are counted 3."""
    monkeypatch.setattr(repair_module, "CHUNK_KEYS", 4)
    for customer in CUSTOMERS:
        job_billing.record(customer, USED)
        job_billing.set_counter(customer, COUNTED)
    return job_billing


def hold(billing: Billing, *names: str, months: tuple[str, ...] = (), lasts: timedelta = timedelta(hours=1)) -> None:
    """Hold customers as `recon hold` does."""
    with BillingDatabase(billing.url).connection() as connection:
        with begin(connection):
            until = now(connection) + lasts
        keys = [BillingMonth.parse(month) for month in months]
        holds.hold(connection, names, keys, reason="TICKET-9: disputed", held_by="ada", until=until)


def release(billing: Billing, *names: str, months: tuple[str, ...] = ()) -> tuple[Hold, ...]:
    keys = [BillingMonth.parse(month) for month in months]
    with BillingDatabase(billing.url).connection() as connection:
        return holds.release(connection, names, keys, reason=None, released_by="ada")


def in_force(billing: Billing) -> list[tuple[str, str | None]]:
    with BillingDatabase(billing.url).transaction() as connection:
        return [(one.gateway_customer_id, one.partition) for one in holds.open_holds(connection)]


def end_holds(billing: Billing) -> None:
    """Let the time of every hold be over, as it will be."""
    billing.query("update recon.hold set until = clock_timestamp()")


def months_of_next_tick(billing: Billing, mode: Mode) -> list[str]:
    run = new_run(billing.url, first="2025-03", last="2025-06")
    with run.decision() as (connection, tables):
        found = months_to_reconcile(connection, run.question.extent, tables, recent_days=35, mode=mode)
    return [month.key for month in found]


def test_held_keys_are_not_repaired_but_named_by_a_warning_all_others_are_repaired(drifted: Billing) -> None:
    hold(drifted, HELD, "nobody")

    result = run_assets()

    assert drifted.counters() == dict.fromkeys(CUSTOMERS, USED) | {HELD: COUNTED}
    check = result.check("counters_match_event_sums")
    assert (check.passed, check.severity.value, check.metadata["held_count"].value) == (False, "WARN", 1)
    assert HELD in (check.description or "")
    assert drifted.outcomes()[HELD] == "held"
    assert drifted.query("select outcome, rows_repaired, held_count from recon.reconciliation_run") == [
        ("not_clean", 5, 1)
    ]
    error = drifted.value("select error from recon.counter_drift where outcome = 'held'")
    assert error == "held by ada: TICKET-9: disputed"

    assert [one.gateway_customer_id for one in release(drifted, HELD)] == [HELD]
    assert run_assets().check("counters_match_event_sums").passed
    assert drifted.counters() == dict.fromkeys(CUSTOMERS, USED)
    assert drifted.value("select count(*) from recon.open_key") == 0


def test_a_counter_that_differs_for_another_reason_beside_a_held_one_is_an_error(drifted: Billing) -> None:
    hold(drifted, HELD)
    drifted.query(
        "alter table billing_usage_counters add constraint not_this "
        "check (gateway_customer_id <> 'poison' or usage_count = 1)"
    )
    drifted.add_event("poison", USED)
    drifted.add_counter("poison", 1)

    check = run_assets().check("counters_match_event_sums")

    assert check.severity.value == "ERROR"
    assert (check.metadata["mismatch_count"].value, check.metadata["held_count"].value) == (2, 1)


def test_a_hold_on_one_month_does_not_stop_repairs_of_other_months(drifted: Billing) -> None:
    drifted.add_event(HELD, USED, period=JUNE)
    hold(drifted, HELD, months=("2025-05",))

    reconcile(drifted.url, last="2025-06")

    assert (drifted.counter(HELD), drifted.counter(HELD, period=JUNE)) == (COUNTED, USED)


@pytest.mark.parametrize("touched", [True, False])
def test_a_hold_between_detection_and_repair_is_obeyed(drifted: Billing, *, touched: bool) -> None:
    run = new_run(drifted.url)
    run.compare()
    if touched:
        drifted.touch_counters()
    hold(drifted, HELD)

    outcome = run.repair()

    assert (outcome.repaired, outcome.held, outcome.untouched) == (5, 1, 0)
    assert drifted.counter(HELD) == COUNTED
    answer = run.verify()
    assert (answer.mismatch_count, answer.held_count) == (1, 1)


def test_a_hold_in_the_middle_of_a_chunk_returns_once_that_chunk_has_ended(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    seen_at_return: list[dict[str, int]] = []

    def hold_and_look() -> None:
        hold(drifted, *CUSTOMERS)
        seen_at_return.append(drifted.counters())

    with background() as start:

        def hold_now() -> None:
            start(hold_and_look)
            wait_until_blocked(drifted, PRODUCT)
            assert seen_at_return == []

        outcome = run.repair(after={"repair_locked_counters": hold_now})

    assert 0 < outcome.repaired < len(CUSTOMERS)
    assert outcome.held == len(CUSTOMERS) - outcome.repaired
    assert seen_at_return == [drifted.counters()]


def test_a_hold_on_a_counter_that_the_run_waits_for_is_obeyed(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    with drifted.session() as holder:
        holder.query("select from billing_usage_counters where gateway_customer_id = %s for update", HELD)
        outcome = run.repair(on_progress=lambda done: hold(drifted, HELD) if done == len(CUSTOMERS) else None)

    assert (outcome.repaired, outcome.held, outcome.deferred) == (5, 1, 0)


def test_a_hold_that_expires_in_the_middle_of_a_run_is_kept_to_its_end_and_the_next_run_repairs(
    drifted: Billing,
) -> None:
    hold(drifted, HELD)
    run = new_run(drifted.url)
    run.compare()
    end_holds(drifted)

    outcome = run.repair()

    assert (outcome.repaired, outcome.held) == (5, 1)
    assert drifted.counter(HELD) == COUNTED
    assert run_assets().check("counters_match_event_sums").passed
    assert drifted.counter(HELD) == USED


def test_a_hold_ends_by_the_clock_of_the_database(drifted: Billing) -> None:
    hold(drifted, HELD, lasts=timedelta(milliseconds=200))
    wait_until(lambda: in_force(drifted) == [])

    assert reconcile(drifted.url).repaired == len(CUSTOMERS)


@pytest.fixture(params=[Mode.INCREMENTAL, Mode.FULL])
def mode(request: pytest.FixtureRequest, drifted: Billing) -> Mode:
    """Both modes; in full mode the log has no column that tells what is new."""
    if request.param is Mode.FULL:
        drifted.query("alter table billing_usage_events drop column if exists ingest_xid")
    elif not drifted.query("select 1 from pg_attribute where attname = 'ingest_xid' and not attisdropped"):
        pytest.skip("the log cannot be read in increments")
    return request.param


def test_an_old_month_with_a_held_key_is_in_every_tick_until_that_key_is_right(drifted: Billing, mode: Mode) -> None:
    """Also where nothing but the nightly audit could have found the drift: a counter of an old month, set by hand."""
    long_ago = datetime(2025, 6, 2, tzinfo=UTC)
    drifted.query("update billing_usage_events set created_at = %s", long_ago)
    drifted.query("update billing_usage_counters set usage_count = %s, updated_at = %s", USED, long_ago)
    whole = {"first": "2025-03", "last": "2025-06"}
    for _ in range(2):
        run_assets(**whole)
    assert months_of_next_tick(drifted, mode) == []
    drifted.query(
        "update billing_usage_counters set usage_count = %s where gateway_customer_id = any(%s)",
        COUNTED,
        [HELD, CUSTOMERS[4]],
    )
    assert months_of_next_tick(drifted, mode) == [], "a hand's change in an old month is for the audit"
    hold(drifted, HELD)

    run_assets(**whole, full=True)
    assert (drifted.counter(HELD), drifted.counter(CUSTOMERS[4])) == (COUNTED, USED)
    for _ in range(2):
        assert months_of_next_tick(drifted, mode) == ["2025-05"]
        run_assets()
        assert drifted.counter(HELD) == COUNTED

    end_holds(drifted)
    assert months_of_next_tick(drifted, mode) == ["2025-05"]
    run_assets()

    assert drifted.counter(HELD) == USED
    assert drifted.value("select count(*) from recon.open_key") == 0


def test_what_another_run_noted_as_held_is_not_forgotten_by_one_that_compared_before(drifted: Billing) -> None:
    run = new_run(drifted.url)
    run.compare()
    run.repair()
    answer = run.verify()
    drifted.set_counter(HELD, COUNTED)
    hold(drifted, HELD)
    run_assets()

    run.note_verified(answer)

    assert [row.gateway_customer_id for row in drifted.query("select * from recon.open_key")] == [HELD]


def test_held_keys_do_not_count_as_repairs_for_the_budgets(drifted: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "5")
    assert not run_assets().success
    hold(drifted, HELD)

    assert run_assets().success
    assert len(drifted.ledger()) == 5


def test_a_new_hold_on_the_same_replaces_the_old_one_and_a_release_ends_what_it_names(drifted: Billing) -> None:
    hold(drifted, "a", "b", lasts=timedelta(hours=9))
    hold(drifted, "a", lasts=timedelta(hours=1))
    hold(drifted, "a", months=("2025-05", "2025-06"), lasts=timedelta(hours=2))

    assert in_force(drifted) == [("a", None), ("a", "2025-05"), ("a", "2025-06"), ("b", None)]
    assert [one.partition for one in release(drifted, "a", months=("2025-05",))] == ["2025-05"]
    assert release(drifted, "a", months=("2025-05",)) == ()
    assert len(release(drifted, "a")) == 2
    assert in_force(drifted) == [("b", None)]
    assert drifted.value("select count(*) from recon.hold where released_by = 'ada'") == 4
