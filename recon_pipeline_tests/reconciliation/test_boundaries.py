"""Quotas, periods and extents at their edges, from both sides."""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline.core.quotas import Quota
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline_tests.reconciliation.billing import BIGINT_MAX, MAY, USAGE, Billing, Period, in_month
from recon_pipeline_tests.reconciliation.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.product import SCOPE, mismatch_count, new_run, reconcile

FREE, PAID = 50, 10_000
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
"""So far apart are two writings of one instant at most."""


@pytest.mark.parametrize(("limit", "subscribed"), [(FREE, False), (PAID, True)])
@pytest.mark.parametrize(
    ("counted_to_limit", "used_to_limit", "over", "under"),
    [
        (-2, -1, 0, 0),
        (-1, 0, 1, 0),
        (-1, 1, 1, 0),
        (0, 1, 0, 0),
        (1, 0, 0, 0),
        (0, -1, 0, 1),
        (1, -1, 0, 1),
        (-1, -2, 0, 0),
    ],
)
def test_a_transition_is_a_repair_that_crosses_the_limit(
    billing: Billing, limit: int, subscribed: bool, counted_to_limit: int, used_to_limit: int, over: int, under: int
) -> None:
    if subscribed:
        billing.subscribe("a")
    billing.add_event("a", limit + used_to_limit)
    billing.add_counter("a", limit + counted_to_limit)
    run = new_run(billing.url)

    summary = run.compare().summary
    outcome = run.repair()

    assert (summary.over_quota_transitions, summary.under_quota_transitions) == (over, under)
    assert (outcome.over_quota_transitions, outcome.under_quota_transitions) == (over, under)
    assert billing.ledger("usage_limit") == [(limit,)]


def test_a_missing_counter_that_reaches_its_limit_is_a_transition(billing: Billing) -> None:
    billing.add_event("at", FREE)
    billing.add_event("below", FREE - 1)

    assert reconcile(billing.url).over_quota_transitions == 1


def test_an_orphan_at_its_limit_is_unblocked(billing: Billing) -> None:
    billing.add_counter("at", FREE)
    billing.add_counter("below", FREE - 1)

    assert reconcile(billing.url).under_quota_transitions == 1


def test_the_largest_bigint_is_a_limit_and_a_count_like_any_other(make_billing: MakeBilling) -> None:
    billing = make_billing("alter table billing_usage_events alter quantity type bigint")
    for customer, used in (("below", BIGINT_MAX - 1), ("at", BIGINT_MAX)):
        billing.add_event(customer, used)
    quotas = {USAGE: Quota(free=BIGINT_MAX, paid=BIGINT_MAX)}

    outcome = reconcile(billing.url, quotas=quotas)

    assert outcome.over_quota_transitions == 1
    assert billing.counters() == {"at": BIGINT_MAX, "below": BIGINT_MAX - 1}
    assert billing.ledger("usage_delta") == [(BIGINT_MAX,), (BIGINT_MAX - 1,)]


def test_a_usage_type_without_a_quota_has_no_limit(billing: Billing) -> None:
    billing.add_event("a", 10**6)

    assert reconcile(billing.url, quotas={}).over_quota_transitions == 0
    assert billing.ledger("usage_limit, over_quota_transition") == [(None, None)]


@pytest.mark.parametrize("status", ["active", "trialing"])
def test_a_subscription_that_covers_the_period_gives_the_paid_limit(billing: Billing, status: str) -> None:
    billing.subscribe("exact", status=status)
    billing.subscribe("wider", status=status, period=(MAY[0] - MICROSECOND, MAY[1] + MICROSECOND))
    billing.subscribe("cut", status=status, period=(MAY[0] + SECOND, MAY[1] - SECOND))
    billing.subscribe("twice", status=status)
    billing.subscribe("twice", status=status)
    for customer in ("exact", "wider", "cut", "twice"):
        billing.add_event(customer)

    reconcile(billing.url)

    assert billing.ledger("usage_limit") == [(PAID,)] * 4


@pytest.mark.parametrize(
    ("status", "period"),
    [
        ("past_due", MAY),
        ("unpaid", MAY),
        ("ACTIVE", MAY),
        ("active", (MAY[0] + SECOND + MICROSECOND, MAY[1])),
        ("active", (MAY[0], MAY[1] - SECOND - MICROSECOND)),
    ],
)
def test_any_other_subscription_leaves_the_free_limit(billing: Billing, status: str, period: Period) -> None:
    billing.subscribe("a", status=status, period=period)
    billing.add_event("a")

    reconcile(billing.url)

    assert billing.ledger("usage_limit") == [(FREE,)]


def test_a_subscription_of_another_gateway_or_customer_gives_nothing(billing: Billing) -> None:
    billing.subscribe("b")
    billing.subscribe("a")
    billing.query("update billing_subscriptions set gateway_name = 'paddle' where gateway_customer_id = 'a'")
    billing.add_event("a")

    reconcile(billing.url)

    assert billing.ledger("usage_limit") == [(FREE,)]


@pytest.mark.parametrize(
    ("start", "month"),
    [
        (datetime(2025, 5, 1, tzinfo=UTC), "2025-05"),
        (datetime(2025, 5, 1, tzinfo=UTC) - MICROSECOND, "2025-04"),
        (datetime(2025, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2025-05"),
        (datetime(2025, 6, 1, tzinfo=UTC), "2025-06"),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), "2028-02"),
        (datetime(2028, 3, 1, tzinfo=UTC) - MICROSECOND, "2028-02"),
        (datetime(2027, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC), "2027-02"),
        (datetime(2025, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "2025-12"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01"),
    ],
)
def test_a_period_belongs_to_the_month_of_its_first_instant_and_to_no_other(
    billing: Billing, start: datetime, month: str
) -> None:
    billing.add_event("a", 7, period=in_month((start, start), 31))
    year, number = map(int, month.split("-"))
    before, after = (
        f"{year - (number == 1)}-{(number - 2) % 12 + 1:02d}",
        f"{year + (number == 12)}-{number % 12 + 1:02d}",
    )

    assert new_run(billing.url, first=before, last=before).compare().summary.drift_count == 0
    assert new_run(billing.url, first=after, last=after).compare().summary.drift_count == 0
    run = new_run(billing.url, first=before, last=after)
    assert [(cell.partition, cell.kind, cell.keys) for cell in run.compare().cells] == [(month, "missing", 1)]
    reconcile(billing.url, first=month, last=month)
    assert mismatch_count(billing.url, first=before, last=after) == 0


def test_a_run_over_some_customers_touches_no_other(billing: Billing) -> None:
    for customer in ("a", "b", "c"):
        billing.add_event(customer, 3)
    run = new_run(billing.url, customers=("a", "c", "nobody"))

    assert run.compare().summary.by_kind == {"missing": 2, "under": 0, "over": 0, "orphan": 0}
    run.repair()

    assert billing.counters() == {"a": 3, "c": 3}
    assert run.verify().mismatch_count == 0
    assert mismatch_count(billing.url) == 1


def test_each_metered_usage_of_the_scope_is_reconciled_with_its_own_events_and_limit(billing: Billing) -> None:
    scope = (MeteredUsage("paddle", "sms"), *SCOPE)
    billing.add_event("a", 60)
    billing.add_event("a", 70, gateway_name="paddle", usage_type="sms")
    billing.add_event("a", 1, gateway_name="paddle")
    billing.add_counter("a", 5, gateway_name="paddle", usage_type="sms")
    run = new_run(billing.url, scope=scope)

    assert run.compare().summary.by_kind == {"missing": 1, "under": 1, "over": 0, "orphan": 0}
    run.repair()

    assert billing.ledger("gateway_name, usage_type, usage_count_before, usage_count_after, usage_limit") == [
        ("paddle", "sms", 5, 70, None),
        ("stripe", "remote_commands", None, 60, FREE),
    ]
    assert run.verify().mismatch_count == 0


@pytest.mark.parametrize("customer", ["", "  ", "O'Brien", "%s :name {x}", "Ωmega\n\t\\", "x" * 1_000, "Ω" * 500])
def test_any_text_is_a_customer(billing: Billing, customer: str) -> None:
    billing.add_event(customer, 3)

    run = new_run(billing.url, customers=(customer,))
    run.compare()
    run.repair()

    assert billing.counters() == {customer: 3}
    assert run.verify().mismatch_count == 0


def test_a_counter_of_0_without_events_is_no_drift(billing: Billing) -> None:
    billing.add_counter("a", 0)

    run = new_run(billing.url)

    assert run.compare().summary.drift_count == 0
    assert run.verify().mismatch_count == 0


def test_a_negative_counter_is_repaired(make_billing: MakeBilling) -> None:
    billing = make_billing(
        "alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check"
    )
    billing.add_counter("orphan", -5)
    billing.add_event("under", 3)
    billing.add_counter("under", -(2**63))

    reconcile(billing.url)

    assert billing.counters() == {"orphan": 0, "under": 3}
    assert billing.ledger("usage_delta") == [(5,), (2**63 + 3,)]
