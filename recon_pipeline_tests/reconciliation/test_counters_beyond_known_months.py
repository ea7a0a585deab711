"""Counters that no run compares, because their period begins in no known month, are counted and sampled."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters import counters_beyond_months
from recon_pipeline_tests.reconciliation.billing import GATEWAY, MAY, USAGE, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.support.assets import AssetsRun, Check, run_assets

CURRENT = BillingMonth.containing(datetime.now(UTC))
ADD = """
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    ) values (%s, gen_random_uuid()::text, %s, %s::timestamptz, %s::timestamptz, 7)
"""
BEFORE = ("2024-12-01 00:00Z", "2025-01-01 00:00Z")


def add(billing: Billing, start: object, end: object, *, gateway: str = GATEWAY, usage: str = USAGE) -> None:
    billing.query(ADD, gateway, usage, start, end)


def check(result: AssetsRun) -> Check:
    return result.check("counters_are_in_known_months")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (*BEFORE, "1 counters begin before RECON_START_PERIOD (2025-01): if they are to be compared"),
        ("-infinity", "infinity", "1 counters begin before RECON_START_PERIOD"),
        ("2020-03-05 00:00Z", "infinity", "1 counters begin before RECON_START_PERIOD"),
        ("2999-01-01 00:00Z", "2999-02-01 00:00Z", "1 counters begin after"),
    ],
)
def test_a_counter_outside_of_the_known_months_is_counted_shown_and_left_as_it_is(
    job_billing: Billing, start: str, end: str, said: str, *, full: bool
) -> None:
    add(job_billing, start, end)
    job_billing.record("b", 5)

    result = run_assets(full=full)

    reported = check(result)
    assert (reported.passed, reported.severity.name) == (False, "WARN")
    assert said in (reported.description or "")
    assert "they are left as they are" in (reported.description or "")
    assert reported.metadata["count"].value == 1
    sample = reported.metadata["sample"]
    assert isinstance(sample, dg.TableMetadataValue)
    assert [shown.data["usage_count"] for shown in sample.records] == ["7"]
    assert result.success
    assert job_billing.value("select usage_count from billing_usage_counters where gateway_customer_id <> 'b'") == 7


def test_counters_before_a_first_month_that_somebody_declared_are_counted_and_no_warning(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_START_PERIOD", "2025-01")
    add(job_billing, *BEFORE)
    job_billing.record("b", 5)

    reported = check(run_assets())

    assert reported.passed
    assert "1 counters begin before RECON_START_PERIOD (2025-01), as declared" in (reported.description or "")
    assert reported.metadata["count"].value == 1


def test_counters_from_the_first_month_to_the_next_one_are_known_and_those_of_others_not_ours(
    job_billing: Billing,
) -> None:
    """Both sides of each boundary."""
    job_billing.record("b", 5)
    first, end = datetime(2025, 1, 1, tzinfo=UTC), CURRENT.next().end
    moment = timedelta(microseconds=1)
    add(job_billing, first, first + moment)
    add(job_billing, end - moment, end)
    add(job_billing, *BEFORE, gateway="other")
    add(job_billing, *BEFORE, usage="other")
    assert check(run_assets()).passed

    add(job_billing, first - moment, first)
    add(job_billing, end, end + moment)

    reported = check(run_assets())
    assert reported.metadata["count"].value == 2
    assert f"1 counters begin after {CURRENT.next().key}" in (reported.description or "")


@pytest.mark.parametrize(("counters_beyond", "at_least"), [(2, False), (3, True)])
def test_a_tick_counts_counters_up_to_its_limit_and_the_audit_counts_them_all(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, counters_beyond: int, *, at_least: bool
) -> None:
    install_increments(job_billing.url)
    job_billing.record("b", 5)
    monkeypatch.setattr(counters_beyond_months, "MOST_BEYOND", 3)
    for _ in range(counters_beyond):
        add(job_billing, *BEFORE)

    tick, audit = check(run_assets()), check(run_assets(full=True))

    assert ("At least so many" in (tick.description or "")) is at_least
    assert "At least" not in (audit.description or "")
    for _ in range(5):
        add(job_billing, *BEFORE)
    assert check(run_assets()).metadata["count"].value == 3
    assert check(run_assets(full=True)).metadata["count"].value == counters_beyond + 5


def test_without_an_index_on_periods_of_counters_a_tick_does_not_look_and_says_so(
    make_incremental_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = make_incremental_billing("drop index billing_usage_counters_period")
    monkeypatch.setenv("DATABASE_URL", billing.url)
    billing.record("b", 5)
    billing.add_counter("a", 7, period=(MAY[0].replace(year=2020), MAY[1].replace(year=2020)))

    tick = check(run_assets())

    assert tick.passed
    assert "Not checked by this run" in (tick.description or "")
    assert not check(run_assets(full=True)).passed
