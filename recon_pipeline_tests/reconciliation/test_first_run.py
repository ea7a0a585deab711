"""The first run that may repair a metered usage shows what it would change, and waits for a person's approval."""

from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records import migrate
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, USAGE, Billing
from recon_pipeline_tests.reconciliation.product import run_job
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

EVERYTHING = {"first": "2025-01", "last": BillingMonth.containing(datetime.now(UTC)).key}
ACCEPTED = "select usage_type, accepted_by, reason, run_id from recon.accepted_usage order by usage_type"
APPROVED = {"approve_reason": "checked against the invoices", "approved_by": "ada"}
APRIL = (datetime(2025, 4, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC))
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


@pytest.fixture
def accepted_from_may(fresh: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """What is accepted begins with May; then April enters the comparison, in which b was counted elsewhere."""
    monkeypatch.setenv("RECON_START_PERIOD", "2025-05")
    fresh.record("a", 5)
    assert run_assets(**EVERYTHING | {"first": "2025-05"}).success
    assert fresh.value("select first_partition from recon.accepted_usage") == "2025-05"
    monkeypatch.setenv("RECON_START_PERIOD", "2025-01")
    fresh.add_counter("b", 1_000, period=APRIL)
    return fresh


def test_months_that_enter_the_comparison_later_are_asked_about_like_a_first_run(accepted_from_may: Billing) -> None:
    billing = accepted_from_may
    billing.set_counter("a", 4)

    blocked = run_assets(**EVERYTHING)

    assert (
        "the first run that may repair stripe:remote_commands in months before 2025-05: 1 counter would be changed "
        "(missing 0, under 0, over 0, orphan 1), the largest: b in 2025-04 from 1000 to 0."
    ) in said(blocked)
    assert (
        "If the log does not have all events from before 2025-05: set RECON_START_PERIOD=2025-05, or type "
        'recon retention --before 2025-05 --reason "your reason", and the other months go on.'
    ) in said(blocked)
    assert (billing.counter("a"), billing.counter("b", period=APRIL)) == (4, 1_000)
    assert run_assets().success, "of May alone"
    assert billing.counter("a") == 5


def test_an_approval_of_earlier_months_accepts_them(accepted_from_may: Billing) -> None:
    billing = accepted_from_may
    run_assets(**EVERYTHING)

    assert run_assets(**EVERYTHING, **APPROVED).success

    assert billing.counter("b", period=APRIL) == 0
    assert billing.value("select first_partition from recon.accepted_usage") == "2025-01"
    billing.add_counter("a", 7, period=APRIL)
    assert run_assets(**EVERYTHING).success, "without an approval"


def test_earlier_months_in_which_every_counter_matches_are_accepted_and_empty_ones_are_not(
    accepted_from_may: Billing,
) -> None:
    billing = accepted_from_may
    billing.query("delete from billing_usage_counters where gateway_customer_id = 'b'")
    assert run_assets(**EVERYTHING).success
    assert billing.value("select first_partition from recon.accepted_usage") == "2025-05"

    billing.record("b", 3, period=APRIL)
    assert run_assets(**EVERYTHING).success

    assert billing.value("select first_partition from recon.accepted_usage") == "2025-01"


def test_a_start_that_is_set_back_lets_the_other_months_go_on(
    accepted_from_may: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing = accepted_from_may
    billing.set_counter("a", 4)
    assert not run_assets(**EVERYTHING).success
    monkeypatch.setenv("RECON_START_PERIOD", "2025-05")

    assert run_assets(**EVERYTHING | {"first": "2025-05"}).success

    assert (billing.counter("a"), billing.counter("b", period=APRIL)) == (5, 1_000)


def bring_back_to(version: str, billing: Billing) -> None:
    """Make schema recon as the migrations up to that one do, and copy into it the columns that it has already."""
    billing.query("alter schema recon rename to recon_now; create schema recon")
    with BillingDatabase(billing.url).connection(any_schema_version=True) as connection, begin(connection):
        config = migrate._config()
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    columns = (
        "select table_name, string_agg(column_name, ', ')"
        " from information_schema.columns join information_schema.columns as before using (table_name, column_name)"
        " where columns.table_schema = 'recon' and before.table_schema = 'recon_now' and table_name <> 'schema_version'"
        " and columns.is_generated = 'NEVER'"
        " group by table_name"
    )
    for table, names in billing.query(columns):
        billing.query(
            f"set session_replication_role = replica; delete from recon.{table};"
            f"insert into recon.{table} ({names}) overriding system value select {names} from recon_now.{table}"
        )
    billing.query("reset session_replication_role; drop schema recon_now cascade")


@pytest.mark.parametrize(
    ("declared", "accepted_from"), [(None, "2025-05"), ("2025-04", "2025-05"), ("2025-06", "2025-06")]
)
def test_an_upgrade_accepts_the_months_that_were_reconciled_and_asks_about_earlier_ones(
    job_billing: Billing, declared: str | None, accepted_from: str
) -> None:
    job_billing.record("a", 5)
    assert run_assets(first="2025-05", last="2025-06").success
    if declared is not None:
        job_billing.query(
            "insert into recon.retention (before_partition, reason, declared_by) values (%s, 'kept', 'ada')", declared
        )
    bring_back_to("0014", job_billing)

    with BillingDatabase(job_billing.url).connection(any_schema_version=True) as connection:
        assert migrate.upgrade(connection)

    found = dict(job_billing.query("select usage_type, first_partition from recon.accepted_usage"))
    assert found == {USAGE: accepted_from} | dict.fromkeys(("sms_messages", "llm_tokens"), declared)
