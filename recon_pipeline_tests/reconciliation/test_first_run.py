"""The first run that may repair a metered usage shows what it would change, and waits for a person's approval."""

from datetime import UTC, datetime
from typing import Any

import pytest

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, USAGE, Billing
from recon_pipeline_tests.reconciliation.product import run_job
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

EVERYTHING = {"first": "2025-01", "last": BillingMonth.containing(datetime.now(UTC)).key}
ACCEPTED = "select usage_type, accepted_by, reason, run_id from recon.accepted_usage order by usage_type"
APPROVED = {"approve_reason": "checked against the invoices", "approved_by": "ada"}
TYPES = "remote_commands,sms_messages"


@pytest.fixture(params=["incremental", "full"])
def fresh(request: pytest.FixtureRequest, job_billing: Billing) -> Billing:
    """A database in which nothing was accepted, in each of the modes."""
    job_billing.query("delete from recon.accepted_usage")
    if request.param == "full":
        job_billing.query("alter table billing_usage_events drop column if exists ingest_xid cascade")
    return job_billing


def give_opening_balance(billing: Billing, customer: str = "a", **columns: Any) -> None:
    """What moving from an older system leaves: a counter that holds more than the log knows of."""
    billing.add_event(customer, 5, **columns)
    billing.add_counter(customer, 1_005, **columns)


def accepted(billing: Billing) -> list[Any]:
    return billing.query(ACCEPTED)


def said(result: AssetsRun) -> str:
    return result.check("drift_is_within_budgets").description or ""


def test_a_first_run_changes_nothing_and_shows_what_it_would_change(fresh: Billing) -> None:
    give_opening_balance(fresh)
    fresh.record("b", 3)
    fresh.set_counter("b", 1)
    before = fresh.counters()

    result = run_assets(**EVERYTHING)

    assert not result.success
    assert "this is the first run that may repair stripe:remote_commands: 2 counters would be changed" in said(result)
    assert "(missing 0, under 1, over 1, orphan 0), the largest: a in 2025-05 from 1005 to 5, b" in said(result)
    assert "No counter was changed." in said(result)
    assert f'recon reconcile --all --approve-run {result.run_id[:8]} --approve "your reason"\n' in said(result)
    assert fresh.counters() == before
    assert fresh.ledger() == []
    assert accepted(fresh) == []


def test_a_repair_by_itself_is_blocked_like_the_whole_run(fresh: Billing) -> None:
    """Somebody who materializes one asset in the UI comes past no check of another."""
    give_opening_balance(fresh)

    result = run_job(only="repaired_counters", **EVERYTHING)

    assert "this is the first run" in result.errors
    assert fresh.counter("a") == 1_005


def test_an_approval_of_what_was_shown_repairs_and_lets_later_runs_repair(fresh: Billing) -> None:
    give_opening_balance(fresh)
    run_assets(**EVERYTHING)

    approved = run_assets(**EVERYTHING, **APPROVED)

    assert approved.success
    assert fresh.counter("a") == 5
    assert accepted(fresh) == [(USAGE, "ada", "checked against the invoices", approved.run_id)]
    fresh.set_counter("a", 4)
    assert run_assets().success, "of one month, without an approval"
    assert fresh.counter("a") == 5


def test_an_approval_without_anything_shown_is_refused(fresh: Billing) -> None:
    give_opening_balance(fresh)

    result = run_assets(**EVERYTHING, **APPROVED)

    assert "nobody can have seen" in said(result)
    assert accepted(fresh) == []
    assert fresh.counter("a") == 1_005


def test_an_approval_is_of_no_more_keys_than_were_shown(fresh: Billing) -> None:
    give_opening_balance(fresh)
    run_assets(**EVERYTHING)
    give_opening_balance(fresh, "b")

    result = run_assets(**EVERYTHING, **APPROVED)

    assert "Blocked again" in said(result)
    assert "and 1 were shown" in said(result)
    assert accepted(fresh) == []
    assert run_assets(**EVERYTHING, **APPROVED).success, "these were shown now"


def test_a_first_run_that_finds_nothing_to_repair_is_accepted_by_itself(fresh: Billing) -> None:
    fresh.record("a", 5)

    result = run_assets(**EVERYTHING)

    assert result.success
    assert accepted(fresh) == [(USAGE, None, "every counter matched", result.run_id)]
    fresh.set_counter("a", 4)
    assert run_assets(**EVERYTHING).success
    assert fresh.counter("a") == 5


def test_a_run_that_had_nothing_to_compare_accepts_nothing(fresh: Billing) -> None:
    """Before an import of counters, no counter differs."""
    assert run_assets(**EVERYTHING).success

    assert accepted(fresh) == []
    give_opening_balance(fresh)
    assert not run_assets(**EVERYTHING).success


def test_matching_counters_of_one_month_or_of_one_customer_accept_nothing(fresh: Billing) -> None:
    fresh.record("b", 5)
    give_opening_balance(fresh, "a", period=JUNE)

    assert run_assets().success, "May alone"
    assert run_assets(customers=["b"], **EVERYTHING).success

    assert accepted(fresh) == []


def test_an_approval_of_a_part_repairs_that_part_and_the_rest_still_waits(fresh: Billing) -> None:
    give_opening_balance(fresh, "a")
    give_opening_balance(fresh, "b")
    assert (
        "This run covers a part of them. To see all, and how to approve them: recon reconcile --all --dry-run."
        in said(run_assets(customers=["a"], **EVERYTHING))
    )

    assert run_assets(customers=["a"], **EVERYTHING, **APPROVED).success

    assert (fresh.counter("a"), fresh.counter("b")) == (5, 1_005)
    assert accepted(fresh) == []
    assert not run_assets(**EVERYTHING).success


def test_months_that_were_found_matching_one_after_the_other_are_accepted_with_the_last(fresh: Billing) -> None:
    """As ticks of the schedule do, which take one run for each range of months."""
    fresh.record("a", 5, period=MAY)
    fresh.record("a", 5, period=JUNE)
    # Where the log has no ingest_xid, what was touched in the last hour is looked at again.
    fresh.query("update billing_usage_events set created_at = created_at - interval '1 day'")
    fresh.query("update billing_usage_counters set updated_at = updated_at - interval '1 day'")
    last = EVERYTHING["last"]

    assert run_assets(first="2025-01", last="2025-05").success
    assert accepted(fresh) == []
    assert run_assets(first="2025-06", last=last).success

    assert [row.reason for row in accepted(fresh)] == ["every counter matched"]


def test_a_usage_that_enters_the_scope_is_asked_for_and_blocks_the_others_until_then(
    fresh: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.record("a", 5)
    assert run_assets(**EVERYTHING).success
    give_opening_balance(fresh, "b", usage_type="sms_messages")
    fresh.set_counter("a", 4)
    monkeypatch.setenv("RECON_SCOPE", ",".join(f"stripe:{usage_type}" for usage_type in TYPES.split(",")))

    blocked = run_assets(**EVERYTHING)

    assert "the first run that may repair stripe:sms_messages: 1 counter " in said(blocked)
    assert "stripe:remote_commands" not in said(blocked)
    assert fresh.counter("a") == 4
    assert run_assets(**EVERYTHING, **APPROVED).success
    assert fresh.counter("a") == 5
    assert [row.usage_type for row in accepted(fresh)] == TYPES.split(",")


def test_what_was_shown_of_one_usage_approves_nothing_of_another(
    fresh: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands,stripe:sms_messages")
    give_opening_balance(fresh, "a")
    give_opening_balance(fresh, "b")
    run_assets(**EVERYTHING)
    fresh.set_counter("b", 5)
    give_opening_balance(fresh, "a", usage_type="sms_messages")

    result = run_assets(**EVERYTHING, **APPROVED)

    assert "stripe:sms_messages: 1 counter would be changed" in said(result)
    assert "and 0 were shown" in said(result)
    assert accepted(fresh) == []
