"""A subscription's row knows its current period alone: which limit an earlier period had, nobody can tell any more."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing, Period
from recon_pipeline_tests.support.assets import run_assets

APRIL: Period = (datetime(2025, 4, 1, tzinfo=UTC), MAY[0])
FREE, PAID = 50, 10_000
IN_MAY = ("--period", "2025-05", "--json")
EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
MAPPING = """
gateway_name: {value: stripe}
usage_type: {value: remote_commands}
gateway_customer_id: customer
request_id: id
event_timestamp: at
quantity: units
period_start: start
period_end: end
"""


@pytest.fixture
def billing(make_billing: MakeBilling, orchestrated: None, mode: str) -> Billing:
    """A billing database in which runs read what is new, or the whole log each time."""
    return make_billing(template="prepared" if mode == "incremental" else "prepared_full")


def reconcile(**variables: str) -> RunRecord:
    with patch.dict(os.environ, variables):
        return run_assets().record


@EVERY_MODE
def test_replaying_a_month_before_renewals_claims_no_transition_and_is_not_blocked(billing: Billing) -> None:
    for customer in ("a", "b", "c"):
        billing.subscribe(customer, period=JUNE)
        billing.add_event(customer, 300)
        billing.add_counter(customer, 7)
    billing.subscribe("canceled", period=JUNE, status="canceled")
    billing.add_event("canceled", 300)

    ended = reconcile(RECON_MAX_OVER_QUOTA_TRANSITIONS="0")

    assert ended.outcome == "clean", ended.error
    assert (ended.drift_count, ended.over_quota_transitions) == (4, 0)
    assert billing.counters() == {"a": 300, "b": 300, "c": 300, "canceled": 300}
    assert billing.ledger("usage_limit, over_quota_transition, under_quota_transition") == [(None, None, None)] * 4


@EVERY_MODE
def test_unblocking_in_a_month_before_the_renewal_is_no_transition_either(billing: Billing) -> None:
    billing.subscribe("a", period=JUNE)
    billing.add_event("a", 7)
    billing.add_counter("a", 300)

    assert reconcile().outcome == "clean"
    assert billing.ledger("usage_count_after, usage_limit, under_quota_transition") == [(7, None, None)]


@EVERY_MODE
def test_a_renewal_that_a_driver_wrote_a_microsecond_early_is_after_the_period(billing: Billing) -> None:
    billing.subscribe("a", period=(MAY[1] - timedelta(microseconds=1), JUNE[1]))
    billing.add_event("a", FREE)

    assert reconcile().over_quota_transitions == 0
    assert billing.ledger("usage_limit") == [(None,)]


@EVERY_MODE
def test_a_customer_who_never_subscribed_or_whose_period_is_not_before_it_still_has_the_free_limit(
    billing: Billing,
) -> None:
    """No subscription; one that began within the period; one that ended before it; one that has not begun yet."""
    billing.subscribe("began within", period=(MAY[0] + timedelta(days=14), JUNE[0] + timedelta(days=14)))
    billing.subscribe("a moment too early", period=(MAY[1] - timedelta(seconds=2), JUNE[1]))
    billing.subscribe("ended before", period=APRIL)
    in_a_year = datetime.now(UTC) + timedelta(days=365)
    billing.subscribe("to come", period=(in_a_year, in_a_year + timedelta(days=30)))
    all_customers = ("none", "began within", "a moment too early", "ended before", "to come")
    for customer in all_customers:
        billing.add_event(customer, FREE)

    assert reconcile().over_quota_transitions == len(all_customers)
    assert billing.ledger("usage_limit") == [(FREE,)] * len(all_customers)


@EVERY_MODE
def test_of_several_subscriptions_a_paid_one_that_covers_the_period_decides(billing: Billing) -> None:
    billing.subscribe("both kept", period=MAY)
    billing.subscribe("both kept", period=JUNE)
    billing.subscribe("subscribed again", period=MAY, status="canceled")
    billing.subscribe("subscribed again", period=JUNE)
    billing.subscribe("subscribed again", period=JUNE)
    for customer in ("both kept", "subscribed again"):
        billing.add_event(customer, PAID)

    assert reconcile().over_quota_transitions == 1
    assert billing.ledger("gateway_customer_id, usage_limit") == [("both kept", PAID), ("subscribed again", None)]


@EVERY_MODE
def test_which_statuses_are_paid_is_a_setting(billing: Billing) -> None:
    for status in ("active", "trialing", "past_due"):
        billing.subscribe(status, status=status)
        billing.add_event(status)

    assert reconcile(RECON_PAID_STATUSES="active, past_due").outcome == "clean"

    assert dict(billing.ledger("gateway_customer_id, usage_limit")) == {
        "active": PAID,
        "past_due": PAID,
        "trialing": FREE,
    }
    explained = recon("explain", "--customer", "past_due", *IN_MAY, RECON_PAID_STATUSES="active,past_due")
    assert explained.json["explanations"][0]["limit"]["units"] == PAID
    explained = recon("explain", "--customer", "past_due", *IN_MAY)
    assert explained.json["explanations"][0]["limit"]["units"] == FREE


@EVERY_MODE
def test_explain_says_that_the_limit_of_an_earlier_period_is_unknown_and_why(billing: Billing) -> None:
    billing.subscribe("a", period=JUNE)
    billing.add_event("a", 300)

    (one,) = recon("explain", "--customer", "a", *IN_MAY).json["explanations"]

    source = (
        "the period ended before the current one of subscription active, 2025-06-01 to 2025-07-01, "
        "which says nothing of earlier ones"
    )
    assert one["limit"] == {"units": None, "source": source, "is_known": False}
    assert f"unknown ({source})" in recon("explain", "--customer", "a", "--period", "2025-05").said


@EVERY_MODE
@pytest.mark.parametrize("status", ["canceled", "cancelled"])
def test_replaying_the_last_period_of_canceled_subscriptions_claims_no_transition_and_is_not_blocked(
    billing: Billing, status: str
) -> None:
    """While a period lasts, its limit is the free one: what was canceled at once is not paid any more."""
    billing.subscribe("at its end", status=status)
    billing.subscribe("a year", status=status, period=(APRIL[0], APRIL[0] + timedelta(days=365)))
    for customer in ("at its end", "a year"):
        billing.add_event(customer, 300)
        billing.add_counter(customer, 7)

    ended = reconcile(RECON_MAX_OVER_QUOTA_TRANSITIONS="0")

    assert (ended.outcome, ended.over_quota_transitions) == ("clean", 0), ended.error
    assert billing.ledger("usage_count_after, usage_limit, over_quota_transition") == [(300, None, None)] * 2
    (one,) = recon("explain", "--customer", "at its end", *IN_MAY).json["explanations"]
    assert one["limit"] == {
        "units": None,
        "source": f"the period has ended, and subscription {status}, 2025-05-01 to 2025-06-01, "
        "does not say which status it had before",
        "is_known": False,
    }

    lasting = (MAY[0], datetime.now(UTC) + timedelta(days=1))
    billing.subscribe("at once", status=status, period=lasting)
    billing.add_event("at once", 300, period=lasting)

    assert reconcile().over_quota_transitions == 1
    (one,) = recon("explain", "--customer", "at once", *IN_MAY).json["explanations"]
    assert one["limit"]["units"] == FREE


@EVERY_MODE
def test_a_dry_run_of_a_backfill_claims_no_transition_where_the_limit_is_unknown(
    billing: Billing, tmp_path: Path
) -> None:
    billing.subscribe("renewed", period=JUNE)
    billing.subscribe("past_due", status="past_due")
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    start, end = (moment.isoformat() for moment in MAY)
    lines = [f"{who},{who}-1,2025-05-03T00:00:00Z,{FREE},{start},{end}" for who in ("renewed", "past_due", "free")]
    (tmp_path / "late.csv").write_text("\n".join(["customer,id,at,units,start,end", *lines, ""]))
    look = ("backfill-events", str(tmp_path / "late.csv"), "--mapping", str(tmp_path / "mapping.yaml"), "--dry-run")

    def over_quota(**variables: str) -> list[str]:
        output = recon(*look, "--json", **variables)
        assert output.exit_code == 0, output.said
        return sorted(one["gateway_customer_id"] for one in output.json["plan"]["over_quota"])

    assert over_quota() == ["free", "past_due"]
    assert over_quota(RECON_PAID_STATUSES="active,trialing,past_due") == ["free"]
