"""In a sealed month the seal is the log: its counters stay what was billed, whatever happens to the log."""

from collections.abc import Callable
from typing import Any

import pytest

from recon_pipeline.store.counters import sealing
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing, customers
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import new_run
from recon_pipeline_tests.reconciliation.seals import corrections_of, database, reopen, seal
from recon_pipeline_tests.support.assets import AssetsRun, run_assets
from recon_pipeline_tests.support.logs import partitioned_log

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
CUSTOMERS = customers(6)
ONE, OTHER = CUSTOMERS[0], CUSTOMERS[1]
IN_MAY = "period_start < '2025-06-01 00:00Z'"
ADMITS_CREDITS = """
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check;
"""
BY_START = f"""
    {partitioned_log("period_start")}
    create table events_all partition of billing_usage_events default;
    create index on billing_usage_events (request_id);
"""
LATER = {
    "a late event": f"""
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end
        )
        select distinct on (gateway_customer_id)
            gateway_name, gateway_customer_id, usage_type, 'late-' || gateway_customer_id, 5, period_start, period_end
        from billing_usage_events where {IN_MAY}
    """,
    "an event of another size": f"update billing_usage_events set quantity = 1 where quantity = 4 and {IN_MAY}",
    "an event that moves to another customer": f"""
        update billing_usage_events set gateway_customer_id = 'other' where quantity = 4 and {IN_MAY}
    """,
    "a retention job": f"delete from billing_usage_events where {IN_MAY}",
    "a deleted event": f"delete from billing_usage_events where quantity = 4 and {IN_MAY}",
}


def run(**config: object) -> AssetsRun:
    return run_assets(first="2025-05", last="2025-06", **config)


def tick(**config: object) -> RunRecord:
    return run(**config).record


def fill(billing: Billing) -> Billing:
    """Everyone used 10 in May and 7 in June, which a run has counted."""
    for customer in CUSTOMERS:
        for period, quantity in ((MAY, 4), (MAY, 6), (JUNE, 7)):
            billing.add_event(customer, quantity, period=period)
        billing.add_counter(customer, 10)
        billing.add_counter(customer, 7, period=JUNE)
    assert tick().outcome == "clean"
    return billing


@pytest.fixture
def sealed(make_billing_in_mode: MakeBilling, mode: str) -> Billing:
    """May is sealed, June is open."""
    billing = fill(make_billing_in_mode(mode))
    seal(billing)
    assert tick().outcome == "clean"
    return billing


@EVERY_MODE
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_what_happens_to_the_log_of_a_sealed_month_changes_no_counter_and_opens_no_key(
    sealed: Billing, later: str
) -> None:
    sealed.connection.execute(later.encode())
    for _ in range(2):
        record = tick()
        assert (record.outcome, record.drift_count, record.doubtful_count) == ("clean", 0, 0)
    assert sealed.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert sealed.ledger() == []
    assert sealed.query("select * from recon.open_key") == []


@EVERY_MODE
@pytest.mark.parametrize("later", ["a late event", "a retention job"])
@pytest.mark.parametrize("value", [13, 7, 0])
def test_a_counter_of_a_sealed_month_that_somebody_edits_is_repaired_to_its_sealed_sum(
    sealed: Billing, later: str, value: int
) -> None:
    sealed.connection.execute(LATER[later].encode())
    assert tick().outcome == "clean"
    sealed.query(
        f"update billing_usage_counters set usage_count = {value} where gateway_customer_id = %s and {IN_MAY}", ONE
    )
    record = tick()
    assert (record.outcome, record.drift_count, record.rows_repaired) == ("clean", 1, 1), record.error
    assert sealed.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert sealed.ledger() == [(ONE, "over" if value > 10 else "under", value, 10)]


@EVERY_MODE
def test_a_counter_of_a_sealed_month_that_is_deleted_comes_back_and_one_that_is_added_is_set_to_0(
    sealed: Billing,
) -> None:
    sealed.query(f"delete from billing_usage_counters where gateway_customer_id = %s and {IN_MAY}", ONE)
    sealed.add_counter("nobody", 5)
    assert tick().outcome == "clean"
    assert sealed.counters() == {**dict.fromkeys(CUSTOMERS, 10), "nobody": 0}
    assert sealed.ledger() == [(ONE, "missing", None, 10), ("nobody", "orphan", 5, 0)]


@EVERY_MODE
def test_an_increment_with_a_late_event_is_taken_back_and_shown_as_a_correction(sealed: Billing, mode: str) -> None:
    sealed.record(ONE, 5, request_id="late")
    assert sealed.counter(ONE) == 15
    assert tick().outcome == "clean"
    assert sealed.counter(ONE) == 10
    found = corrections_of(sealed)
    assert list(found) == [ONE]
    assert (found[ONE].sealed_sum, found[ONE].sum_now, found[ONE].difference) == ("10", "15", "5")
    what = "came later" if mode == "incremental" else "came later or changed"
    assert [(one.request_id, one.quantity, one.what) for one in found[ONE].events] == [("late", "5", what)]


@EVERY_MODE
def test_open_months_beside_a_sealed_one_follow_the_log_as_before(sealed: Billing) -> None:
    sealed.add_event(ONE, 5, period=JUNE)
    sealed.query("update billing_usage_counters set usage_count = 1 where gateway_customer_id = %s", OTHER)
    record = tick()
    assert (record.outcome, record.drift_count, record.rows_repaired) == ("clean", 3, 3)
    assert sealed.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert sealed.counters(period=JUNE) == {**dict.fromkeys(CUSTOMERS, 7), ONE: 12}


@EVERY_MODE
def test_a_log_that_is_empty_but_for_sealed_months_blocks_no_run(make_billing_in_mode: MakeBilling, mode: str) -> None:
    billing = make_billing_in_mode(mode)
    for customer in CUSTOMERS:
        billing.record(customer, 10)
    assert run_assets().record.outcome == "clean"
    seal(billing)
    billing.query("delete from billing_usage_events")
    billing.set_counter(ONE, 3)
    ended = run_assets()
    assert (ended.success, ended.record.outcome, ended.errors) == (True, "clean", "")
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)
    billing.add_counter(ONE, 3, period=JUNE)
    assert not run().check("event_log_is_visible").passed, "of an open month it is lost"


@EVERY_MODE
def test_credits_and_twins_that_come_late_make_no_key_of_a_sealed_month_doubtful(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    """In an open month all of that waits for an approval."""
    billing = fill(make_billing_in_mode(mode, ADMITS_CREDITS + BY_START))
    seal(billing)
    for customer in CUSTOMERS:
        billing.add_event(customer, -3)
        billing.add_event(customer, 6, request_id="twin")
        billing.add_event(customer, 6, request_id="twin", period=(MAY[0], JUNE[1]))
        billing.add_counter(customer, 1, period=(MAY[0].replace(microsecond=1), MAY[1]))
        billing.query(
            "update billing_usage_counters set usage_count = 4 where gateway_customer_id = %s and usage_count = 10",
            customer,
        )
    for _ in range(2):
        record = tick()
        assert (record.outcome, record.doubtful_count) == ("clean", 0), record
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)


@EVERY_MODE
def test_a_month_that_is_sealed_or_reopened_under_a_repair_leaves_its_keys_to_the_next_run(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    billing = fill(make_billing_in_mode(mode))
    billing.set_counter(ONE, 3)
    under_way = new_run(billing.url)
    under_way.compare()
    billing.set_counter(ONE, 10)
    billing.query("update billing_usage_counters set usage_count = 7 where period_start >= '2025-06-01 00:00Z'")
    seal(billing)
    billing.record(ONE, 5)
    outcome = under_way.repair()
    assert (outcome.repaired, outcome.doubtful) == (0, 1)
    assert billing.counter(ONE) == 15, "the run had compared it with the log"

    under_way = new_run(billing.url)
    under_way.compare()
    reopen(billing)
    outcome = under_way.repair()
    assert (outcome.repaired, outcome.doubtful) == (0, 1)
    assert billing.counter(ONE) == 15, "it is what the log says now"
    assert tick().outcome == "clean"
    assert billing.counter(ONE) == 15


@EVERY_MODE
def test_what_left_the_log_while_a_month_was_sealed_is_asked_about_once_it_is_reopened(sealed: Billing) -> None:
    sealed.query(f"delete from billing_usage_events where quantity = 4 and {IN_MAY}")
    sealed.record(ONE, 1)
    assert tick().outcome == "clean"
    reopen(sealed)
    for _ in range(2):
        record = tick()
        assert (record.outcome, record.doubtful_count) == ("not_clean", 6), record
        assert sealed.counters() == dict.fromkeys(CUSTOMERS, 10)
        left = [(one["keys"], one["events"], one["units"]) for one in record.events_left_the_log or ()]
        assert left == [(6, 5, "23")]
    approved = tick(approve_reason="TICKET-8")
    assert approved.rows_repaired == 6, approved
    assert sealed.counters() == {**dict.fromkeys(CUSTOMERS, 6), ONE: 7}


@EVERY_MODE
def test_a_run_that_verified_the_log_while_the_month_was_sealed_does_not_hide_a_counter(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    """The seal is of 10. Between its snapshot and its first write a late event is counted, and a run verifies that."""
    billing = fill(make_billing_in_mode(mode))
    question = new_run(billing.url).question
    with database(billing).connection() as connection, decision(connection, "REPEATABLE READ") as tables:
        billing.record(ONE, 5)
        assert tick().outcome == "clean"
        assert billing.counter(ONE) == 15
        sealing.seal(connection, question, tables, sealed_by="ada", reason=None, dagster_run_id=None)
    assert tick().outcome == "clean"
    assert billing.counter(ONE) == 10


WRITES: dict[str, Callable[[Billing], object]] = {
    "a held customer": lambda billing: billing.query(
        "insert into recon.hold (gateway_customer_id, reason, held_by, until) "
        "select %s, 'TICKET', 'ada', now() + interval '1 hour'",
        ONE,
    ),
    "a pause": lambda billing: billing.query(
        "insert into recon.control (action, reason, acted_by) values ('pause', 'TICKET', 'ada')"
    ),
}


@EVERY_MODE
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_holds_and_pauses_are_kept_in_a_sealed_month_too(sealed: Billing, write: Callable[[Billing], object]) -> None:
    write(sealed)
    sealed.query(f"update billing_usage_counters set usage_count = 3 where gateway_customer_id = %s and {IN_MAY}", ONE)
    assert tick().rows_repaired == 0
    assert sealed.counter(ONE) == 3


@EVERY_MODE
def test_a_budget_blocks_repairs_of_a_sealed_month_too(sealed: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "5")
    sealed.query(f"update billing_usage_counters set usage_count = 3 where {IN_MAY}")
    assert tick().outcome == "blocked"
    assert set(sealed.counters().values()) == {3}


@EVERY_MODE
def test_an_empty_log_shows_no_counter_of_a_sealed_month_as_one_that_would_change(sealed: Billing) -> None:
    sealed.query("delete from billing_usage_events")

    blocked = run()

    assert (blocked.record.outcome, blocked.record.drift_count) == ("blocked", None)
    shown: Any = blocked.check("event_log_is_visible").metadata["would_change"].value
    assert {row.data["period_start"][:7] for row in shown.records} == {"2025-06"}


def test_a_month_that_was_sealed_before_its_events_were_summed_up_lacks_nothing(
    make_billing_in_mode: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_SETTLE_SECONDS", "1800")
    billing = fill(make_billing_in_mode("incremental"))
    seal(billing)
    for _ in range(2):
        assert run().check("sealed_months_hold").passed
