"""Events that no run covers, because their period begins in no known month, are counted, sampled and never silent."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.sums import events_beyond_months
from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE, Billing, Period
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.support.assets import AssetsRun, Check, run_assets

NULLABLE = "alter table billing_usage_events alter period_start drop not null"
CURRENT = BillingMonth.containing(datetime.now(UTC))
ADD = """
    insert into billing_usage_events (
        gateway_name, gateway_customer_id, usage_type, request_id, period_start, period_end
    ) values (%s, %s, %s, gen_random_uuid()::text, %s::timestamptz, %s::timestamptz)
"""
BEFORE = ("2024-12-01 00:00Z", "2025-01-01 00:00Z")
AFTER = ("2999-01-01 00:00Z", "2999-02-01 00:00Z")


def add(billing: Billing, period: Sequence[str | None], *, gateway: str = GATEWAY, usage: str = USAGE) -> None:
    billing.query(ADD, gateway, "a", usage, *period)


def check(result: AssetsRun) -> Check:
    return result.check("events_lie_in_known_months")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("period", "said"),
    [
        (BEFORE, "1 events begin before RECON_START_PERIOD (2025-01): set it to the first month that counts"),
        (("-infinity", "2025-02-01 00:00Z"), "1 events begin before RECON_START_PERIOD"),
        (AFTER, "1 events begin after"),
        (("infinity", "infinity"), "1 events begin after"),
        ((None, "2025-02-01 00:00Z"), "1 events have no period_start"),
    ],
)
def test_an_event_outside_of_the_known_months_is_counted_and_shown(
    job_billing: Billing, period: Sequence[str | None], said: str, *, full: bool
) -> None:
    job_billing.query(NULLABLE)
    job_billing.connection.execute(
        b"alter table billing_usage_events drop constraint if exists billing_usage_events_check"
    )
    add(job_billing, period)
    job_billing.record("b", 5)

    result = run_assets(full=full)

    reported = check(result)
    assert (reported.passed, reported.severity.name) == (False, "WARN")
    assert said in (reported.description or "")
    assert reported.metadata["count"].value == 1
    sample = reported.metadata["sample"]
    assert isinstance(sample, dg.TableMetadataValue)
    (shown,) = sample.records
    assert shown.data["gateway_customer_id"] == "a"
    assert result.success


def test_events_before_a_first_month_that_somebody_declared_are_counted_and_no_warning(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_START_PERIOD", "2025-01")
    add(job_billing, BEFORE)
    job_billing.record("b", 5)

    reported = check(run_assets())

    assert reported.passed
    assert "1 events begin before RECON_START_PERIOD (2025-01), as declared" in (reported.description or "")
    assert reported.metadata["count"].value == 1


def test_events_from_the_first_month_to_the_next_one_are_known(job_billing: Billing) -> None:
    """Both sides of each boundary."""
    first, end = datetime(2025, 1, 1, tzinfo=UTC), CURRENT.next().end
    moment = timedelta(microseconds=1)
    inside: tuple[Period, ...] = ((first, first + moment), (end - moment, end))
    for period in inside:
        job_billing.add_event("a", period=period)
    assert check(run_assets()).passed

    job_billing.add_event("a", period=(first - moment, first))
    job_billing.add_event("a", period=(end, end + moment))

    reported = check(run_assets())
    assert reported.metadata["count"].value == 2
    assert f"1 events begin after {CURRENT.next().key}" in (reported.description or "")


def test_events_of_others_are_not_ours_to_mention(job_billing: Billing) -> None:
    add(job_billing, BEFORE, gateway="other")
    add(job_billing, BEFORE, usage="other")
    job_billing.record("b", 5)

    assert check(run_assets()).passed


@pytest.mark.parametrize(("events_beyond", "at_least"), [(2, False), (3, True)])
def test_a_tick_counts_up_to_its_limit_and_the_audit_counts_them_all(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, events_beyond: int, *, at_least: bool
) -> None:
    """A log may be much older than the first known month: what a tick costs must not depend on it."""
    install_increments(job_billing.url)
    monkeypatch.setattr(events_beyond_months, "MOST_BEYOND", 3)
    for _ in range(events_beyond):
        add(job_billing, BEFORE)
    run_assets()  # builds the aggregates

    tick, audit = check(run_assets()), check(run_assets(full=True))

    assert tick.metadata["count"].value == events_beyond
    assert ("At least so many" in (tick.description or "")) is at_least
    assert "At least" not in (audit.description or "")
    for _ in range(5):
        add(job_billing, BEFORE)
    assert check(run_assets()).metadata["count"].value == 3
    assert check(run_assets(full=True)).metadata["count"].value == events_beyond + 5


def test_others_in_great_number_do_not_make_a_tick_read_them_all(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_increments(job_billing.url)
    monkeypatch.setattr(events_beyond_months, "MOST_BEYOND", 3)
    for _ in range(5):
        add(job_billing, ("2024-12-01 00:00Z", "2025-01-01 00:00Z"), gateway="other")
    add(job_billing, ("2024-11-01 00:00Z", "2024-12-01 00:00Z"))

    assert check(run_assets()).passed, "behind the limit"
    assert not check(run_assets(full=True)).passed


@pytest.mark.parametrize(
    ("indexes", "is_looked_at"),
    [
        ("", False),
        ("create index on billing_usage_events (usage_type, created_at)", False),
        ("create index on billing_usage_events (usage_type, period_start) where quantity > 1", False),
        ("create index on billing_usage_events using brin (period_start)", False),
        ("create index on billing_usage_events (usage_type, period_start)", True),
        ("create index on billing_usage_events (period_start)", True),
    ],
)
def test_without_an_index_a_tick_does_not_look_and_says_so(
    make_incremental_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch, indexes: str, *, is_looked_at: bool
) -> None:
    billing = make_incremental_billing(f"drop index billing_usage_events_period; {indexes}")
    monkeypatch.setenv("DATABASE_URL", billing.url)
    add(billing, BEFORE)

    tick = check(run_assets())

    assert tick.passed is not is_looked_at
    if not is_looked_at:
        assert "This run did not check it" in (tick.description or "")
        assert "--full" in (tick.description or "")
    assert not check(run_assets(full=True)).passed
