"""Which months a tick takes: those with news, however old they are, and no idle one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing, Period
from recon_pipeline_tests.reconciliation.increments import advance, tick
from recon_pipeline_tests.reconciliation.product import new_run

APRIL: Period = (datetime(2025, 4, 1, tzinfo=UTC), MAY[0])
ALL: dict[str, Any] = {"first": "2025-03", "last": "2025-06"}
RECENT_DAYS = 35


@pytest.fixture
def idle(incremental_billing: Billing) -> Billing:
    """Usage in April, May and June, all of it verified."""
    for period in (APRIL, MAY, JUNE):
        incremental_billing.record("a", 10, period=period)
    for _ in range(2):
        tick(incremental_billing.url, **ALL)
    assert months(incremental_billing) == []
    return incremental_billing


def months(billing: Billing, **question: Any) -> list[str]:
    """The months that a tick would take now."""
    run = new_run(billing.url, **ALL | question)
    with run.decision() as (connection, tables):
        extent = run.question.extent
        found = months_to_reconcile(connection, extent, tables, recent_days=RECENT_DAYS, mode=Mode.INCREMENTAL)
    return [month.key for month in found]


def tick_over_june(billing: Billing) -> None:
    billing.record("a", 1, period=JUNE)
    tick(billing.url, first="2025-06", last="2025-06")


def test_a_month_that_was_never_built_is_taken(incremental_billing: Billing) -> None:
    assert months(incremental_billing) == ["2025-03", "2025-04", "2025-05", "2025-06"]

    tick(incremental_billing.url, first="2025-04", last="2025-05")

    assert months(incremental_billing) == ["2025-03", "2025-06"]


def test_idle_months_are_not_taken_whatever_happens_in_another(idle: Billing) -> None:
    for _ in range(3):
        idle.record("a", 1, period=JUNE)
        assert months(idle) == ["2025-06"]
        tick(idle.url, first="2025-06", last="2025-06")

    idle.add_event("a", 1, usage_type="sms_messages")
    idle.add_event("a", 1, gateway_name="paddle", period=APRIL)
    assert months(idle) == []


def test_an_event_of_an_old_month_brings_it_in_until_it_is_verified(idle: Billing) -> None:
    idle.add_event("a", 5, period=APRIL)
    assert months(idle) == ["2025-04"]
    tick_over_june(idle)
    assert months(idle) == ["2025-04"], "absorbed by a run over another month, and not verified"
    run = new_run(idle.url, first="2025-04", last="2025-04")
    run.compare()
    run.repair()
    assert months(idle) == ["2025-04"]

    tick(idle.url, first="2025-04", last="2025-04")

    assert months(idle) == []
    assert idle.counters(period=APRIL) == {"a": 15}


def test_an_event_that_commits_late_brings_its_month_in(idle: Billing) -> None:
    with idle.session() as late:
        late.add_event("a", 5, period=APRIL)
        for _ in range(2):
            tick_over_june(idle)
            assert "2025-04" not in months(idle)
        late.connection.commit()

    assert "2025-04" in months(idle)
    tick_over_june(idle)
    assert months(idle) == ["2025-04"]


@pytest.mark.parametrize(
    "change", ["delete from billing_usage_events", "update billing_usage_events set quantity = quantity + 1"]
)
def test_the_month_of_a_deleted_or_updated_event_is_taken_until_it_is_verified(idle: Billing, change: str) -> None:
    idle.query(f"{change} where period_start = %s", APRIL[0])
    assert months(idle) == ["2025-04"]

    advance(new_run(idle.url, first="2025-06", last="2025-06"))
    assert months(idle) == ["2025-04"], "summed anew by a run over another month, and not verified"

    tick(idle.url, first="2025-04", last="2025-04")
    assert months(idle) == []


def test_both_months_of_an_event_that_moves_between_them_are_taken(idle: Billing) -> None:
    idle.query(
        "update billing_usage_events set period_start = %s, period_end = %s where period_start = %s", *MAY, APRIL[0]
    )

    assert months(idle) == ["2025-04", "2025-05"]


def test_a_month_whose_verification_failed_is_taken_again(idle: Billing) -> None:
    idle.query("alter table billing_usage_counters add check (usage_count <> 15) not valid")
    idle.add_event("a", 5, period=APRIL)

    for _ in range(2):
        tick(idle.url, first="2025-04", last="2025-04")
        tick_over_june(idle)
        assert months(idle) == ["2025-04"]


def test_after_a_truncation_every_month_is_taken(idle: Billing) -> None:
    idle.query("truncate billing_usage_events")
    assert months(idle) == ["2025-03", "2025-04", "2025-05", "2025-06"]

    tick_over_june(idle)
    assert months(idle) == ["2025-03", "2025-04", "2025-05"]


@pytest.mark.parametrize(
    ("ended_days_ago", "is_taken"), [(-1, True), (RECENT_DAYS - 1, True), (RECENT_DAYS + 1, False)]
)
def test_a_period_that_is_open_or_ended_lately_keeps_its_month_in_every_tick(
    incremental_billing: Billing, ended_days_ago: int, is_taken: bool
) -> None:
    end = datetime.now(UTC) - timedelta(days=ended_days_ago)
    period = (end - timedelta(days=2), end)
    month = f"{period[0]:%Y-%m}"
    incremental_billing.record("a", 10, period=period)
    for _ in range(2):
        tick(incremental_billing.url, first=month, last=month)

    assert months(incremental_billing, first=month, last=month) == ([month] if is_taken else [])


def test_a_usage_that_comes_into_scope_later_is_built_from_all_its_events(idle: Billing) -> None:
    both = (MeteredUsage(GATEWAY, USAGE), MeteredUsage(GATEWAY, "sms_messages"))
    for quantity in (1, 2):
        idle.add_event("a", quantity, usage_type="sms_messages", period=APRIL)
    idle.query("delete from billing_usage_events where usage_type = 'sms_messages' and quantity = 1")
    tick_over_june(idle)
    assert months(idle) == []
    assert months(idle, scope=both) == ["2025-03", "2025-04", "2025-05", "2025-06"]

    tick(idle.url, **ALL, scope=both)
    idle.add_event("a", 4, usage_type="sms_messages", period=MAY)
    assert months(idle, scope=both) == ["2025-05"]
    tick(idle.url, **ALL, scope=both)

    counted = idle.query("select usage_count from billing_usage_counters where usage_type = 'sms_messages' order by 1")
    assert [row.usage_count for row in counted] == [2, 4]
    assert months(idle, scope=both) == []


def test_a_month_that_ended_lately_is_taken_although_it_has_no_events(incremental_billing: Billing) -> None:
    """An orphaned counter of last month would stay until the nightly audit."""
    last_month = BillingMonth.containing(datetime.now(UTC).replace(day=1) - timedelta(days=1))
    question = {"first": "2025-03", "last": last_month.key}
    for _ in range(2):
        tick(incremental_billing.url, **question)

    assert months(incremental_billing, **question) == [last_month.key]
