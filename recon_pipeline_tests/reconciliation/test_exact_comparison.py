"""Detection is exact: one snapshot, no false alarm; and the band of what is in flight with two-transaction writers."""

from datetime import UTC, datetime

import pytest

from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.increments import settle
from recon_pipeline_tests.reconciliation.product import Run, mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import background, wait_until, writers

COMPARISONS = 20
SETTLE_SECONDS = 3_600


def test_comparisons_under_full_speed_traffic_never_report_drift(billing: Billing) -> None:
    busy = customers(20)
    for customer in busy:
        billing.record(customer)
    compared = 0
    with writers(billing, busy):
        while compared < COMPARISONS or billing.value("select count(*) from billing_usage_events") < 500:
            run = new_run(billing.url)
            assert run.compare().summary.drift_count == 0
            assert run.verify().mismatch_count == 0
            compared += 1


def settled_and_in_flight(billing: Billing, counted: int) -> Run:
    """Customer `a` has used 100 long ago and 20 just now, and this is the counter."""
    billing.add_event("a", 100)
    settle(billing)
    billing.add_event("a", 20)
    billing.add_counter("a", counted)
    return new_run(billing.url, settle_seconds=SETTLE_SECONDS)


@pytest.mark.parametrize("counted", [100, 101, 119, 120])
def test_a_counter_between_the_settled_and_the_visible_sum_is_in_sync(billing: Billing, counted: int) -> None:
    run = settled_and_in_flight(billing, counted)

    assert run.compare().summary.drift_count == 0
    assert run.verify().mismatch_count == 0


@pytest.mark.parametrize(("counted", "kind", "repaired"), [(99, "under", 100), (0, "under", 100), (121, "over", 120)])
def test_a_counter_outside_the_band_is_repaired_to_its_nearest_end(
    billing: Billing, counted: int, kind: str, repaired: int
) -> None:
    run = settled_and_in_flight(billing, counted)

    assert run.verify().mismatch_count == 1
    assert run.compare().summary.by_kind[kind] == 1
    run.repair()

    assert billing.ledger() == [("a", kind, counted, repaired)]
    assert run.verify().mismatch_count == 0


def test_a_key_whose_only_event_is_in_flight_needs_no_counter_yet(billing: Billing) -> None:
    settle(billing)
    billing.add_event("a", 5)

    assert new_run(billing.url, settle_seconds=SETTLE_SECONDS).compare().summary.drift_count == 0
    assert new_run(billing.url, settle_seconds=0).compare().summary.by_kind["missing"] == 1


def test_before_a_run_has_taken_a_horizon_long_ago_nothing_is_settled(billing: Billing) -> None:
    billing.add_event("a", 5, created_at=datetime(2025, 5, 1, tzinfo=UTC))
    for _ in range(2):
        assert reconcile(billing.url, settle_seconds=SETTLE_SECONDS).repaired == 0
    assert mismatch_count(billing.url, settle_seconds=SETTLE_SECONDS) == 0

    settle(billing)

    assert mismatch_count(billing.url, settle_seconds=SETTLE_SECONDS) == 1


@pytest.mark.parametrize(("age_seconds", "drift_count"), [(SETTLE_SECONDS - 60, 0), (SETTLE_SECONDS, 1)])
def test_a_horizon_counts_from_settle_seconds_after_it_was_taken(
    billing: Billing, age_seconds: int, drift_count: int
) -> None:
    billing.add_event("a", 5)
    settle(billing, seconds=age_seconds)
    run = new_run(billing.url, settle_seconds=SETTLE_SECONDS)

    assert run.compare().summary.drift_count == drift_count
    assert run.verify().mismatch_count == drift_count


def test_events_of_a_long_writer_are_in_flight_until_its_end_has_settled(billing: Billing) -> None:
    """They were settled by the start of their transaction: repaired at once, and counted twice by its increment."""
    billing.record("a", 100)
    with billing.session() as writer:
        writer.add_event("a", 20, created_at=datetime(2025, 5, 1, tzinfo=UTC))
        billing.record("b", 7)
        settle(billing)
        writer.connection.commit()

    assert reconcile(billing.url, settle_seconds=SETTLE_SECONDS).repaired == 0
    billing.query("update billing_usage_counters set usage_count = usage_count + 20 where gateway_customer_id = 'a'")
    settle(billing)
    assert reconcile(billing.url, settle_seconds=SETTLE_SECONDS).repaired == 0
    assert billing.counters() == {"a": 120, "b": 7}
    assert mismatch_count(billing.url) == 0


def test_an_event_that_is_changed_is_in_flight_until_that_has_settled(billing: Billing) -> None:
    billing.record("a", 100)
    settle(billing)
    billing.query("update billing_usage_events set quantity = 120")
    assert reconcile(billing.url, settle_seconds=SETTLE_SECONDS).repaired == 0

    settle(billing)

    assert reconcile(billing.url, settle_seconds=SETTLE_SECONDS).repaired == 1
    assert billing.counters() == {"a": 120}


def test_an_increment_that_arrives_after_the_repair_converges(billing: Billing) -> None:
    run = settled_and_in_flight(billing, counted=70)
    run.compare()
    run.repair()

    billing.query("update billing_usage_counters set usage_count = usage_count + 20")

    assert mismatch_count(billing.url, settle_seconds=0) == 0


def test_an_increment_that_comes_after_an_over_repair_is_taken_back_by_the_next(billing: Billing) -> None:
    run = settled_and_in_flight(billing, counted=500)
    run.compare()
    run.repair()
    assert billing.counter("a") == 120

    billing.query("update billing_usage_counters set usage_count = usage_count + 20")
    reconcile(billing.url, settle_seconds=SETTLE_SECONDS)

    assert billing.counter("a") == 120


def test_where_nothing_counts_as_settled_yet_a_counter_is_never_lowered_below_what_the_log_shows(
    billing: Billing,
) -> None:
    billing.add_event("a", 12)
    billing.add_counter("a", 13)
    run = new_run(billing.url, settle_seconds=SETTLE_SECONDS)
    run.compare()
    run.repair()

    assert billing.ledger() == [("a", "over", 13, 12)]


@pytest.mark.parametrize("instant", ["-infinity", "2020-01-01", "now", "2999-01-01", "infinity", None])
@pytest.mark.parametrize("column", ["created_at", "event_timestamp"])
def test_transactions_decide_what_is_settled_and_never_what_the_application_writes(
    billing: Billing, column: str, instant: str | None
) -> None:
    billing.add_event("old", 5, **{column: instant})  # pyright: ignore[reportArgumentType]
    settle(billing)
    billing.add_event("fresh", 5, **{column: instant})  # pyright: ignore[reportArgumentType]
    run = new_run(billing.url, settle_seconds=SETTLE_SECONDS)

    run.compare()

    assert billing.outcomes() == {"old": None}


def test_a_live_two_transaction_writer_is_never_drift_and_converges_after_a_repair(billing: Billing) -> None:
    written: list[int] = []
    billing.record("drifted", 9)
    billing.record("a", 1)
    settle(billing)

    def insert_then_increment() -> None:
        with billing.session(autocommit=True) as application:
            for _ in range(300):
                application.add_event("a", 2)
                application.query(
                    "update billing_usage_counters set usage_count = usage_count + 2 where gateway_customer_id = 'a'"
                )
                written.append(2)

    with background() as start:
        writer = start(insert_then_increment)
        wait_until(lambda: bool(written))
        while not writer.done():
            run = new_run(billing.url, settle_seconds=SETTLE_SECONDS, customers=("a",))
            assert run.compare().summary.drift_count == 0
            assert run.verify().mismatch_count == 0
            billing.set_counter("drifted", 1_000)
            reconcile(billing.url, settle_seconds=SETTLE_SECONDS)

    assert billing.counters() == {"a": 601, "drifted": 9}
    assert mismatch_count(billing.url) == 0
