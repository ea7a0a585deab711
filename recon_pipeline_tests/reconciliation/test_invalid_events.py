"""Invalid events are never summed and never hidden; an event outside its period is summed and reported."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from recon_pipeline.store.sums import quality
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run, reconcile
from recon_pipeline_tests.support.assets import run_assets

NO_CHECKS = """
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_events drop constraint billing_usage_events_check;
    alter table billing_usage_events alter quantity drop not null;
"""
NUMERIC = NO_CHECKS + "alter table billing_usage_events alter quantity type numeric;"


def looked_at(billing: Billing, **question: Any) -> quality.Measured:
    run = new_run(billing.url, **question)
    with run.decision("REPEATABLE READ") as (connection, tables):
        known = quality.known(connection, run.question, tables)
        return quality.measure(connection, run.question, tables, known, since=None)


def measured(billing: Billing, **question: Any) -> quality.LogQuality:
    return looked_at(billing, **question).quality


def odd(billing: Billing, *, invalid: bool) -> tuple[quality.OddEvent, ...]:
    found = looked_at(billing)
    return found.invalid if invalid else found.outside


@pytest.mark.parametrize(
    ("tables", "quantity"),
    [
        (NO_CHECKS, None),
        *((NUMERIC, quantity) for quantity in (None, "NaN", "Infinity", "-Infinity", f"-1{'0' * 1_000}")),
    ],
)
def test_an_invalid_quantity_is_counted_and_sampled_but_never_summed(
    make_billing: MakeBilling, tables: str, quantity: object
) -> None:
    billing = make_billing(tables)
    billing.add_event("a", 10)
    billing.add_event("a", quantity, request_id="odd one")

    reconcile(billing.url)

    assert billing.counters() == {"a": 10}
    assert mismatch_count(billing.url) == 0
    found = measured(billing)
    assert (found.events_scanned, found.invalid_count, found.dedupe_count) == (2, 1, 0)
    assert [event.request_id for event in odd(billing, invalid=True)] == ["odd one"]


@pytest.mark.parametrize("period", [(MAY[1], MAY[0]), (MAY[0], MAY[0])])
def test_a_reversed_or_empty_period_is_counted_and_never_summed(
    make_billing: MakeBilling, period: tuple[datetime, datetime]
) -> None:
    billing = make_billing(NO_CHECKS)
    billing.add_event("a", 10, period=period)
    run = new_run(billing.url, last="2025-06")

    assert run.compare().summary.drift_count == 0
    assert run.verify().mismatch_count == 0
    assert measured(billing, last="2025-06").invalid_count == 1


def test_an_event_of_no_customer_is_counted_and_sampled_but_stops_nothing(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_events alter gateway_customer_id drop not null")
    billing.add_event("a", 10)
    billing.add_event(None, 5, request_id="nobody's")

    reconcile(billing.url)

    assert billing.counters() == {"a": 10}
    assert mismatch_count(billing.url) == 0
    assert measured(billing).invalid_count == 1
    assert [event.request_id for event in odd(billing, invalid=True)] == ["nobody's"]


@pytest.mark.parametrize("customer", ["x" * 1_001, "Ω" * 501, "x" * 2_660])
def test_a_customer_whose_name_is_longer_than_1000_bytes_is_reported_and_left_alone(
    billing: Billing, customer: str
) -> None:
    """No index of ours could hold such a key, and one of them stopped every run."""
    billing.add_event("a", 10)
    billing.add_event(customer, 5, request_id="long")
    billing.add_counter(customer, 7)

    for number in range(1, 3):
        assert reconcile(billing.url).failed == 0
        assert billing.counters() == {"a": 10 * number, customer: 7}
        assert mismatch_count(billing.url) == 0
        assert measured(billing).invalid_count == 1
        assert [event.request_id for event in odd(billing, invalid=True)] == ["long"]
        billing.add_event("a", 10)
    billing.query("update billing_usage_events set quantity = 6 where request_id = 'long'")
    billing.query("delete from billing_usage_events where request_id = 'long'")

    reconcile(billing.url)

    assert billing.counters() == {"a": 30, customer: 7}
    assert measured(billing).invalid_count == 0


def test_an_event_whose_period_has_no_end_is_reported_and_stops_nothing(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_events alter period_end drop not null")
    billing.add_event("a", 10)
    billing.add_event("a", 5, request_id="endless")
    billing.query("update billing_usage_events set period_end = null where request_id = 'endless'")

    for number in range(1, 3):
        assert reconcile(billing.url).failed == 0
        assert billing.counters() == {"a": 10 * number}
        assert mismatch_count(billing.url) == 0
        assert measured(billing).invalid_count == 1
        assert [event.request_id for event in odd(billing, invalid=True)] == ["endless"]
        billing.add_event("a", 10)
    billing.query("update billing_usage_events set period_end = %s where request_id = 'endless'", MAY[1])

    reconcile(billing.url)

    assert billing.counters() == {"a": 35}
    assert measured(billing).invalid_count == 0


def test_events_that_belong_to_no_key_are_counted_exactly_when_some_of_them_go(make_billing: MakeBilling) -> None:
    billing = make_billing("""
        alter table billing_usage_events alter gateway_customer_id drop not null;
        alter table billing_usage_events alter period_end drop not null;
    """)
    for number, customer in enumerate((None, None, "x" * 1_001, "x" * 1_001, "", "b")):
        billing.add_event(customer, 5, request_id=f"odd-{number}")
    billing.query("update billing_usage_events set period_end = null where gateway_customer_id = 'b'")
    reconcile(billing.url)
    assert measured(billing).invalid_count == 5

    for left, gone in ((4, "odd-0"), (3, "odd-2"), (3, "odd-4"), (2, "odd-5")):
        billing.query("delete from billing_usage_events where request_id = %s", gone)
        reconcile(billing.url)
        assert measured(billing).invalid_count == left
        assert len(odd(billing, invalid=True)) == left
    assert billing.counters() == {"": 0}
    billing.query(
        "update billing_usage_events set gateway_customer_id = 'c', request_id = 'c' where request_id = 'odd-1'"
    )
    reconcile(billing.url)
    assert measured(billing).invalid_count == 1
    assert billing.counters() == {"": 0, "c": 5}


def test_a_key_with_nothing_but_invalid_events_and_a_counter_is_an_orphan(make_billing: MakeBilling) -> None:
    billing = make_billing(NO_CHECKS)
    billing.add_event("a", None)
    billing.add_counter("a", 5)

    reconcile(billing.url)

    assert billing.ledger() == [("a", "orphan", 5, 0)]


def test_an_invalid_event_is_not_the_first_of_its_request_id(make_billing: MakeBilling) -> None:
    billing = make_billing(
        NO_CHECKS + "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;"
    )
    billing.add_event("a", None, request_id="r", created_at=datetime(2025, 5, 2, tzinfo=UTC))
    billing.add_event("a", 7, request_id="r", created_at=datetime(2025, 5, 3, tzinfo=UTC))

    reconcile(billing.url)

    assert billing.counters() == {"a": 7}
    found = measured(billing)
    assert (found.invalid_count, found.dedupe_count) == (1, 0)


@pytest.mark.parametrize(
    ("event_timestamp", "outside"),
    [
        (datetime(2025, 4, 30, 23, 59, 59, 999_999, tzinfo=UTC), 1),
        (MAY[0], 0),
        (datetime(2025, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC), 0),
        (MAY[1], 1),
        (None, 0),
    ],
)
def test_an_event_outside_its_period_is_summed_and_reported(
    billing: Billing, event_timestamp: datetime | None, outside: int
) -> None:
    billing.add_event("a", 10, event_timestamp=event_timestamp)

    reconcile(billing.url)

    assert billing.counters() == {"a": 10}
    assert billing.counters(period=JUNE) == {}
    assert measured(billing).outside_period_count == outside
    assert len(odd(billing, invalid=False)) == outside


def test_the_job_warns_of_odd_events_with_their_exact_number_and_a_capped_sample(
    make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_billing(NO_CHECKS)
    monkeypatch.setenv("DATABASE_URL", billing.url)
    for _ in range(25):
        billing.add_event("a", None)
    billing.add_event("a", 10, event_timestamp=MAY[0])
    billing.add_event("a", 1, event_timestamp=JUNE[0])

    result = run_assets()

    assert result.success
    assert billing.counters() == {"a": 11}
    invalid, outside = result.check("events_are_valid"), result.check("events_lie_in_their_period")
    assert (invalid.passed, invalid.severity.value, invalid.metadata["count"].value) == (False, "WARN", 25)
    sample = invalid.metadata["sample"]
    assert isinstance(sample, dg.TableMetadataValue)
    assert len(sample.records) == 20
    # now() of the default lies in no period of 2025, so the invalid events are outside theirs as well
    assert (outside.passed, outside.severity.value, outside.metadata["count"].value) == (False, "WARN", 26)
    assert result.check("counters_match_event_sums").passed


@pytest.mark.parametrize("created_at", ["infinity", "-infinity", "20000-01-01", "0500-01-01 BC"])
def test_an_event_created_at_an_instant_that_python_cannot_represent_is_summed(
    job_billing: Billing, created_at: str
) -> None:
    job_billing.add_event("a", 10, created_at=created_at)

    result = run_assets()

    assert result.success, result.errors
    assert job_billing.counters() == {"a": 10}


@pytest.mark.parametrize("column", ["event_timestamp", "period_end"])
def test_an_infinite_instant_stops_nothing(job_billing: Billing, column: str) -> None:
    job_billing.add_event("a", 10)
    job_billing.add_event("b", 5)
    job_billing.query(f"update billing_usage_events set {column} = 'infinity' where gateway_customer_id = 'b'")

    result = run_assets()

    assert result.success, result.errors
    assert job_billing.query("select gateway_customer_id, usage_count from billing_usage_counters order by 1") == [
        ("a", 10),
        ("b", 5),
    ]


@pytest.mark.parametrize("start", ["infinity", "-infinity"])
def test_a_period_that_starts_at_no_instant_belongs_to_no_month(make_billing: MakeBilling, start: str) -> None:
    billing = make_billing(NO_CHECKS)
    billing.add_event("a", 10)
    billing.query("update billing_usage_events set period_start = %s, period_end = 'infinity'", start)

    for first, last in (("0001-01", "0100-12"), ("1970-01", "2069-12"), ("9899-01", "9998-12")):
        assert new_run(billing.url, first=first, last=last).compare().summary.drift_count == 0
