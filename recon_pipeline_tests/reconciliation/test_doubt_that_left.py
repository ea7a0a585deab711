"""Events that made a counter doubtful leave the log: no stored sum had them, and no counter follows unasked."""

from datetime import timedelta
from typing import Any

import pytest

from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.test_events_left_the_log import left
from recon_pipeline_tests.reconciliation.test_table_shapes import FIRST, INDEXED, NO_UNIQUE, PARTITIONED, SECOND
from recon_pipeline_tests.support.assets import compare_assets, run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
BY_TIME = PARTITIONED + "alter table billing_usage_events add unique (gateway_name, request_id, created_at);" + INDEXED
NO_KEY = NO_UNIQUE + INDEXED
CUT = (MAY[0], MAY[1] - timedelta(microseconds=1))
FIRST_LEAVES = f"delete from billing_usage_events where created_at = '{FIRST}'"


def run(**config: Any) -> RunRecord:
    return run_assets(**config).record


def add_twins(billing: Billing, *, requests: int = 1) -> None:
    """Two events of 4 with one request id, as the log's key allows; the application counted both."""
    for number in range(requests):
        for time in (FIRST, SECOND):
            billing.add_event("a", 4, request_id=f"r{number}", created_at=time, event_timestamp=time)
    billing.add_counter("a", 8 * requests)


def add_two_writings(billing: Billing) -> None:
    """One period as two drivers write it; the counter holds both."""
    billing.add_event("a", 4, period=CUT, created_at=FIRST, event_timestamp=FIRST)
    billing.add_event("a", 4, created_at=SECOND, event_timestamp=SECOND)
    billing.add_counter("a", 8)


def add_shared(billing: Billing) -> None:
    """Two customers have one request id, of which the later event does not count."""
    billing.add_event("b", 4, request_id="r", created_at=FIRST, event_timestamp=FIRST)
    billing.add_event("a", 4, request_id="r", created_at=SECOND, event_timestamp=SECOND)
    billing.add_event("a", 4, event_timestamp=SECOND)
    billing.add_counter("b", 4)
    billing.add_counter("a", 8)


def add_refund(billing: Billing) -> None:
    """A refund has the request id of its usage; the application counted both."""
    billing.query("alter table billing_usage_events drop constraint if exists billing_usage_events_quantity_check")
    billing.add_event("a", 12, request_id="r", created_at=FIRST, event_timestamp=FIRST)
    billing.add_event("a", -4, request_id="r", created_at=SECOND, event_timestamp=SECOND)
    billing.add_counter("a", 8)


LOSSES = {
    "a twin": (BY_TIME, add_twins, FIRST_LEAVES),
    "a partition": (
        BY_TIME,
        add_twins,
        "alter table billing_usage_events detach partition billing_usage_events_early",
    ),
    "the other writing": (NO_KEY, add_two_writings, FIRST_LEAVES),
    "an event that another key shares": (
        NO_KEY,
        add_shared,
        "delete from billing_usage_events where request_id = 'r' and gateway_customer_id = 'a'",
    ),
    "a refund": (NO_KEY, add_refund, "delete from billing_usage_events where quantity < 0"),
}


@EVERY_MODE
@pytest.mark.parametrize(("shape", "add", "leave"), LOSSES.values(), ids=LOSSES)
def test_no_counter_follows_because_what_made_it_doubtful_left_the_log(
    make_billing_in_mode: MakeBilling, mode: str, shape: str, add: Any, leave: str
) -> None:
    billing = make_billing_in_mode(mode, shape)
    billing.record("c", 5)
    add(billing)
    assert (run().outcome, billing.counter("a")) == ("not_clean", 8)
    billing.connection.execute(leave.encode())
    billing.set_counter("c", 4)

    for _ in range(2):
        ended = run()
        assert (ended.outcome, left(ended)) == ("not_clean", [("2025-05", 1, 0, "4")]), ended.error
        assert (billing.counter("a"), billing.counter("c")) == (8, 5)

    approved = run(approve_reason="TICKET-1: they were repetitions")

    assert (approved.outcome, left(approved)) == ("clean", []), approved.error
    assert billing.counter("a") == (12 if add is add_refund else 4)
    assert billing.value("select count(*) from recon.open_key") == 0
    billing.set_counter("a", 90)
    assert run().outcome == "clean", "what was approved is forgotten"


@EVERY_MODE
def test_what_left_is_remembered_over_several_runs_however_they_end(
    make_billing_in_mode: MakeBilling, mode: str
) -> None:
    """The doubt goes in two steps, while the customer is held, runs compare alone, and one is blocked."""
    billing = make_billing_in_mode(mode, BY_TIME)
    billing.record("c", 5)
    add_twins(billing, requests=2)
    assert run().outcome == "not_clean"
    billing.query(f"{FIRST_LEAVES} and request_id = 'r0'")
    assert (run().outcome, billing.counter("a")) == ("not_clean", 16)
    assert recon("hold", "--customer", "a", "--reason", "asked", "--until", "1d").exit_code == 0
    billing.query(f"{FIRST_LEAVES} and request_id = 'r1'")
    run()
    compare_assets()
    assert recon("release", "--customer", "a").exit_code == 0

    ended = run()

    assert (ended.outcome, left(ended)) == ("not_clean", [("2025-05", 1, 0, "8")]), ended.error
    assert billing.counter("a") == 16


@EVERY_MODE
def test_of_two_doubts_of_a_counter_both_are_remembered(
    make_billing_in_mode: MakeBilling, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A period that is written in two ways, and a credit; what a declaration ends is one of the two."""
    billing = make_billing_in_mode(mode, NO_KEY)
    billing.query("alter table billing_usage_events drop constraint if exists billing_usage_events_quantity_check")
    billing.record("c", 5)
    add_two_writings(billing)
    billing.add_event("a", -1, created_at=SECOND, event_timestamp=SECOND)
    billing.set_counter("a", 7)
    assert (run().outcome, billing.counter("a")) == ("not_clean", 7)
    monkeypatch.setenv("RECON_NEGATIVE_QUANTITIES", "sum")
    billing.query(FIRST_LEAVES)

    ended = run()

    assert (ended.outcome, left(ended)) == ("not_clean", [("2025-05", 1, 0, "4")]), ended.error
    assert billing.counter("a") == 7


@EVERY_MODE
@pytest.mark.parametrize("seen_by", ["a comparison alone", "a run over one customer", "a blocked run", "under a hold"])
def test_a_doubt_is_remembered_whichever_run_has_seen_it(
    make_billing_in_mode: MakeBilling, mode: str, seen_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing_in_mode(mode, BY_TIME)
    for number in range(5):
        billing.record(f"c{number}", 5)
    run()
    add_twins(billing)
    if seen_by == "a comparison alone":
        compare_assets()
    elif seen_by == "a run over one customer":
        run(customers=["a"])
    elif seen_by == "a blocked run":
        with monkeypatch.context() as allowing:
            allowing.setenv("RECON_MAX_REPAIRS", "1")
            for number in range(5):
                billing.set_counter(f"c{number}", 4)
            assert run().outcome == "blocked"
    else:
        assert recon("hold", "--customer", "a", "--reason", "asked", "--until", "1d").exit_code == 0
        run()
        assert recon("release", "--customer", "a").exit_code == 0
    billing.query(FIRST_LEAVES)

    ended = run()

    assert (ended.outcome, left(ended)) == ("not_clean", [("2025-05", 1, 0, "4")]), ended.error
    assert billing.counter("a") == 8


@EVERY_MODE
def test_of_a_doubt_that_left_each_unit_counts_as_an_event_of_the_day(
    make_billing_in_mode: MakeBilling, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One event was summed and is known to have left; how many were not, nobody knows."""
    billing = make_billing_in_mode(mode, NO_KEY)
    for customer, time in (("b", FIRST), ("a", SECOND)):
        billing.add_event(customer, 500, request_id="r", created_at=time, event_timestamp=time)
    for request_id in ("s", "t"):
        billing.add_event("a", 1, request_id=request_id)
    billing.add_counter("b", 500)
    billing.add_counter("a", 502)
    assert (run().outcome, billing.counter("a")) == ("not_clean", 502)
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "10")
    billing.query("delete from billing_usage_events where gateway_customer_id = 'a' and request_id in ('r', 's')")

    ended = run()

    assert (left(ended), billing.counter("a")) == ([("2025-05", 1, 0, "501")], 502), ended.error


@EVERY_MODE
def test_events_that_are_put_back_need_nothing(make_billing_in_mode: MakeBilling, mode: str) -> None:
    billing = make_billing_in_mode(mode, BY_TIME)
    add_twins(billing)
    run()
    billing.query(f"create table kept as select * from billing_usage_events where created_at = '{FIRST}'")
    billing.query(FIRST_LEAVES)
    assert left(run()) == [("2025-05", 1, 0, "4")]
    names = "id, gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end"
    billing.query(f"insert into billing_usage_events ({names}, created_at) select {names}, created_at from kept")

    assert (left(run()), billing.counter("a")) == ([], 8)


@EVERY_MODE
@pytest.mark.parametrize("counter", [7, 8, 9])
def test_what_a_declaration_raises_is_followed_and_what_it_would_lower_is_asked_about_once(
    make_billing_in_mode: MakeBilling, mode: str, counter: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing_in_mode(mode, BY_TIME)
    add_twins(billing)
    billing.set_counter("a", counter)
    assert run().outcome == "not_clean"
    monkeypatch.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,created_at")

    if counter > 8:
        assert (left(run()), billing.counter("a")) == ([("2025-05", 1, 0, "1")], counter)
    assert (run(approve_reason="TICKET-1" if counter > 8 else "").outcome, billing.counter("a")) == ("clean", 8)
    assert billing.value("select count(*) from recon.open_key") == 0


@EVERY_MODE
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen by a run", "seen by no run"])
def test_declaring_what_names_an_event_hides_no_event_that_left(
    make_billing_in_mode: MakeBilling, mode: str, is_seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ordinary event of a doubtful counter leaves; then its owner says that the twins are two events."""
    billing = make_billing_in_mode(mode, BY_TIME)
    add_twins(billing)
    billing.record("a", 3)
    assert (run().outcome, billing.counter("a")) == ("not_clean", 11)
    billing.query("delete from billing_usage_events where quantity = 3")
    if is_seen:
        run()
    monkeypatch.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,created_at")

    ended = run()

    assert (ended.outcome, billing.counter("a")) == ("not_clean", 11), ended.error
    assert [row[1] for row in left(ended)] == [1]
    assert (run(approve_reason="TICKET-1").outcome, billing.counter("a")) == ("clean", 8)


@EVERY_MODE
def test_a_process_that_does_not_have_the_setting_lowers_no_right_counter(
    make_billing_in_mode: MakeBilling, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing_in_mode(mode, NO_KEY)
    with monkeypatch.context() as declared:
        declared.setenv("RECON_EVENT_IDENTITY", "gateway_name,request_id,created_at")
        add_twins(billing)
        assert run().outcome == "clean"

    ended = run()

    assert (ended.outcome, billing.counter("a")) == ("not_clean", 8), ended.error
    assert [row[1:] for row in left(ended)] == [(1, 1, "4")]
