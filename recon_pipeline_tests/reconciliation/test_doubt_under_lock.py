"""What makes a key doubtful may come between the comparison and the lock: then too the counter is left as it is."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from recon_pipeline_tests.reconciliation.billing import MAY, Billing, Period
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import Run, new_run, reconcile

CREDITS = "alter table billing_usage_events drop constraint billing_usage_events_quantity_check;"
CUT: Period = (MAY[0], MAY[1] - timedelta(microseconds=1))
IN_TWO_WAYS = "one period written in two ways"
NEGATIVE = "has 1 events of negative quantity"
Arrival = Callable[[Billing], object]


def a_credit(billing: Billing) -> None:
    billing.add_event("a", -1)


def events_of_the_period_cut(billing: Billing) -> None:
    billing.add_event("a", 5, period=CUT)
    billing.query("update billing_usage_counters set usage_count = usage_count + 5 where gateway_customer_id = 'a'")


def a_counter_of_the_period_cut(billing: Billing) -> None:
    billing.add_counter("a", 10, period=CUT)


ARRIVALS = [
    (a_credit, NEGATIVE),
    (events_of_the_period_cut, IN_TWO_WAYS),
    (a_counter_of_the_period_cut, IN_TWO_WAYS),
]


def outcomes(billing: Billing, run: Run) -> dict[str, tuple[str | None, str | None]]:
    rows = billing.query(
        "select gateway_customer_id, outcome, error from recon.counter_drift where run_id = %s", run.question.run_id
    )
    return {row[0]: (row[1], row[2]) for row in rows}


@pytest.mark.parametrize(("arrival", "reason"), ARRIVALS)
@pytest.mark.parametrize("counted", [None, 7, 30])
def test_what_arrives_between_comparison_and_lock_changes_nothing_of_its_key_and_others_are_repaired(
    make_billing: MakeBilling, arrival: Arrival, reason: str, counted: int | None
) -> None:
    billing = make_billing(CREDITS)
    for customer in "abc":
        billing.add_event(customer, 10)
    if counted is not None:
        billing.add_counter("a", counted)
    run = new_run(billing.url)
    assert run.compare().summary.doubtful == 0

    outcome = run.repair(before={"lock_free_counters": lambda: arrival(billing)})

    assert (outcome.repaired, outcome.doubtful, outcome.failed) == (2, 1, 0)
    seen = outcomes(billing, run)["a"]
    assert seen[0] == "doubtful"
    assert reason in str(seen[1])
    assert [row[0] for row in billing.ledger()] == ["b", "c"]
    expected = None if counted is None else counted + (5 if arrival is events_of_the_period_cut else 0)
    assert billing.counter("a") == expected


@pytest.mark.parametrize(("arrival", "reason"), ARRIVALS)
def test_a_key_that_came_right_meanwhile_is_in_sync_whatever_is_doubtful_about_it(
    make_billing: MakeBilling, arrival: Arrival, reason: str
) -> None:
    billing = make_billing(CREDITS)
    billing.add_event("a", 10)
    billing.add_counter("a", 7)
    run = new_run(billing.url)
    run.compare()

    def come_right() -> None:
        arrival(billing)
        billing.set_counter("a", 9 if arrival is a_credit else 10)

    outcome = run.repair(before={"lock_free_counters": come_right})

    assert (outcome.in_sync, outcome.doubtful) == (1, 0)
    assert billing.ledger() == []


def test_a_comparison_counts_a_doubtful_key_as_no_repair(make_billing: MakeBilling) -> None:
    billing = make_billing(CREDITS)
    for quantity in (10, -3):
        billing.add_event("a", quantity)
    billing.add_event("b", 5, period=CUT)
    billing.add_counter("b", 5)
    billing.add_event("c", 5)

    found = new_run(billing.url).compare().summary

    assert (found.drift_count, found.doubtful, found.repairs) == (4, 3, 1)


def test_where_credits_are_declared_the_key_is_repaired_to_the_sum_with_them(make_billing: MakeBilling) -> None:
    billing = make_billing(CREDITS)
    billing.add_event("a", 10)
    run = new_run(billing.url, refuses_negative=False)
    run.compare()

    run.repair(before={"lock_free_counters": lambda: a_credit(billing)})

    assert billing.counters() == {"a": 9}
    assert billing.ledger() == [("a", "missing", None, 9)]


def test_a_credit_declared_later_is_summed_without_rebuilding_anything(make_billing: MakeBilling) -> None:
    billing = make_billing(CREDITS)
    billing.add_event("a", 10)
    billing.add_event("a", -3)
    billing.add_counter("a", 10)
    assert reconcile(billing.url).doubtful == 1

    assert reconcile(billing.url, refuses_negative=False).repaired == 1

    assert billing.counters() == {"a": 7}


@pytest.mark.parametrize(
    ("quantities", "right"),
    [([5, -5], 0), ([3, -5, 2], 0), ([0], 0), ([-4, 9], 5)],
)
@pytest.mark.parametrize("counted", [None, 0, 6])
def test_events_that_add_up_to_nothing_need_no_counter_but_a_counter_of_something_is_set_to_0(
    make_billing: MakeBilling, quantities: list[int], right: int, counted: int | None
) -> None:
    billing = make_billing(CREDITS)
    for quantity in quantities:
        billing.add_event("a", quantity)
    if counted is not None:
        billing.add_counter("a", counted)

    for _ in range(2):
        assert reconcile(billing.url, refuses_negative=False).failed == 0

    assert (billing.counter("a") or 0) == right
    assert len(billing.ledger()) == ((counted or 0) != right)


def test_a_negative_sum_fails_its_key_where_the_counters_refuse_it_and_is_written_where_they_do_not(
    make_billing: MakeBilling,
) -> None:
    billing = make_billing(CREDITS)
    billing.add_event("a", -4)
    billing.add_event("b", 3)
    billing.add_counter("a", 2)
    run = new_run(billing.url, refuses_negative=False)
    run.compare()

    outcome = run.repair()

    assert (outcome.repaired, outcome.failed) == (1, 1)
    assert "billing_usage_counters_usage_count_check" in str(outcomes(billing, run)["a"][1])
    assert billing.counters() == {"a": 2, "b": 3}
    billing.query("alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check")
    assert reconcile(billing.url, refuses_negative=False).repaired == 1
    assert billing.counters() == {"a": -4, "b": 3}


@pytest.mark.parametrize(("more", "failed"), [(0, 0), (-1, 1)])
def test_a_sum_below_the_smallest_bigint_fails_its_key_alone(make_billing: MakeBilling, more: int, failed: int) -> None:
    billing = make_billing(
        CREDITS + "alter table billing_usage_events alter quantity type bigint;"
        "alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check"
    )
    billing.add_event("a", -(2**63))
    billing.add_event("a", more)
    billing.add_event("b", 3)
    run = new_run(billing.url, refuses_negative=False)
    run.compare()

    assert run.repair().failed == failed

    assert billing.counter("b") == 3
    if failed:
        assert "is less than a bigint holds" in str(outcomes(billing, run)["a"][1])
    else:
        assert billing.counter("a") == -(2**63)


@pytest.mark.parametrize("digits", [0, 3])
def test_a_counter_is_not_created_for_a_period_that_its_columns_would_round(
    make_billing: MakeBilling, digits: int
) -> None:
    billing = make_billing(f"alter table billing_usage_counters alter period_end type timestamptz({digits})")
    billing.add_event("a", 10, period=CUT)
    billing.add_event("b", 10)
    run = new_run(billing.url)
    run.compare()

    outcome = run.repair()

    assert (outcome.repaired, outcome.doubtful) == (1, 1)
    assert "cannot keep its period exactly" in str(outcomes(billing, run)["a"][1])
    assert billing.value("select count(*) from billing_usage_counters where gateway_customer_id = 'a'") == 0


def test_a_key_that_failed_and_is_doubtful_when_its_step_is_run_again_is_left_alone(make_billing: MakeBilling) -> None:
    billing = make_billing(
        CREDITS + "alter table billing_usage_counters add constraint poison check (usage_count <> 10)"
    )
    billing.add_event("a", 10)
    run = new_run(billing.url)
    run.compare()
    assert run.repair().failed == 1
    billing.query("alter table billing_usage_counters drop constraint poison")
    billing.add_event("a", -1)

    outcome = run.repair()

    assert (outcome.doubtful, outcome.failed) == (1, 0)
    assert billing.counter("a") is None
