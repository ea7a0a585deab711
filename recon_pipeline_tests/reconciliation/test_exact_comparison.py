"""Rules 3 and 4: comparison at one snapshot, no false positive; the in-flight band of two-transaction writers."""

import uuid
from datetime import timedelta

import pytest

from recon_pipeline_tests.reconciliation.billing import MAY, Billing, customers
from recon_pipeline_tests.reconciliation.product import Run, mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import background, wait_until, writers

COMPARISONS = 20
SETTLE_SECONDS = 3_600
FRESH, OLD = timedelta(minutes=1), timedelta(hours=2)


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


def add_aged(billing: Billing, customer: str, quantity: int, age: timedelta) -> None:
    billing.query(
        """
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, created_at
        )
        values ('stripe', %s, 'remote_commands', %s, %s, %s, %s, clock_timestamp() - %s)
        """,
        customer,
        uuid.uuid4().hex,
        quantity,
        *MAY,
        age,
    )


def settled_and_in_flight(billing: Billing, counted: int) -> Run:
    """Customer `a` has used 100 long ago and 20 just now, and this is the counter."""
    add_aged(billing, "a", 100, OLD)
    add_aged(billing, "a", 20, FRESH)
    billing.add_counter("a", counted)
    return new_run(billing.url, settle_seconds=SETTLE_SECONDS)


@pytest.mark.parametrize("counted", [100, 101, 119, 120])
def test_a_counter_between_the_settled_and_the_visible_sum_is_in_sync(billing: Billing, counted: int) -> None:
    run = settled_and_in_flight(billing, counted)

    assert run.compare().summary.drift_count == 0
    assert run.verify().mismatch_count == 0


@pytest.mark.parametrize(("counted", "kind"), [(99, "under"), (0, "under"), (121, "over")])
def test_a_counter_outside_the_band_is_repaired_to_the_settled_sum(billing: Billing, counted: int, kind: str) -> None:
    run = settled_and_in_flight(billing, counted)

    assert run.verify().mismatch_count == 1
    assert run.compare().summary.by_kind[kind] == 1
    run.repair()

    assert billing.ledger() == [("a", kind, counted, 100)]
    assert run.verify().mismatch_count == 0


@pytest.mark.parametrize(("created_ahead", "counted", "drift_count"), [(FRESH, 0, 0), (OLD, 0, 1), (OLD, 7, 0)])
def test_an_event_from_the_future_is_in_flight_only_within_the_band(
    billing: Billing, created_ahead: timedelta, counted: int, drift_count: int
) -> None:
    add_aged(billing, "a", 7, -created_ahead)
    billing.add_counter("a", counted)
    run = new_run(billing.url, settle_seconds=SETTLE_SECONDS)

    assert run.compare().summary.drift_count == drift_count
    assert run.verify().mismatch_count == drift_count


def test_a_key_whose_only_event_is_in_flight_needs_no_counter_yet(billing: Billing) -> None:
    add_aged(billing, "a", 5, FRESH)

    assert new_run(billing.url, settle_seconds=SETTLE_SECONDS).compare().summary.drift_count == 0
    assert new_run(billing.url, settle_seconds=0).compare().summary.by_kind["missing"] == 1


def test_an_increment_that_arrives_after_the_repair_converges(billing: Billing) -> None:
    run = settled_and_in_flight(billing, counted=70)
    run.compare()
    run.repair()

    billing.query("update billing_usage_counters set usage_count = usage_count + 20")

    assert mismatch_count(billing.url, settle_seconds=0) == 0


def test_an_increment_that_an_over_repair_took_back_is_given_again_once_settled(billing: Billing) -> None:
    run = settled_and_in_flight(billing, counted=500)
    run.compare()
    run.repair()
    assert billing.counter("a") == 100

    billing.query("update billing_usage_events set created_at = created_at - interval '1 day'")
    reconcile(billing.url, settle_seconds=SETTLE_SECONDS)

    assert billing.counter("a") == 120


def test_ages_come_from_created_at_and_never_from_event_timestamp(billing: Billing) -> None:
    add_aged(billing, "old", 5, OLD)
    billing.query("update billing_usage_events set event_timestamp = clock_timestamp()")
    add_aged(billing, "fresh", 5, FRESH)
    billing.query("update billing_usage_events set event_timestamp = '2020-01-01' where gateway_customer_id = 'fresh'")
    run = new_run(billing.url, settle_seconds=SETTLE_SECONDS)

    run.compare()

    assert billing.outcomes() == {"old": None}


def test_an_event_without_created_at_counts_as_settled(billing: Billing) -> None:
    add_aged(billing, "a", 5, FRESH)
    billing.query("update billing_usage_events set created_at = null")

    reconcile(billing.url, settle_seconds=SETTLE_SECONDS)

    assert billing.counters() == {"a": 5}


def test_a_live_two_transaction_writer_is_never_drift_and_converges_after_a_repair(billing: Billing) -> None:
    written: list[int] = []
    billing.record("drifted", 9)
    add_aged(billing, "a", 1, OLD)
    billing.add_counter("a", 1)
    billing.query("update billing_usage_events set created_at = created_at - interval '1 day'")

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
