"""`recon retention`: months that are no longer in the log are compared by no run, and their counters are kept."""

from datetime import UTC, datetime
from typing import Any

import pytest
from dagster import DagsterInstance

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import modes
from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing, customers
from recon_pipeline_tests.reconciliation.product import SCOPE, new_run
from recon_pipeline_tests.support.assets import run_assets

EVERY_MODE = pytest.mark.parametrize("mode", ["incremental", "full"])
CUSTOMERS = customers(3)
REASON = "TICKET-9: events are kept for 12 months"


@pytest.fixture
def billing(make_billing: MakeBilling, mode: str, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Everyone used 10 in May and 7 in June, which a run has counted; then the events of May were deleted."""
    monkeypatch.setenv("RECON_START_PERIOD", "2025-05")
    billing = make_billing(template="prepared" if mode == "incremental" else "prepared_full")
    for customer in CUSTOMERS:
        billing.record(customer, 10)
        billing.record(customer, 7, period=JUNE)
    assert reconcile().outcome == "clean"
    billing.query("delete from billing_usage_events where period_start < '2025-06-01 00:00Z'")
    return billing


def reconcile(**config: Any) -> RunRecord:
    """What `recon reconcile --all` does."""
    return run_assets(first="2025-05", last=BillingMonth.containing(datetime.now(UTC)).key, **config).record


def declare(before: str = "2025-06", reason: str = REASON) -> CommandResult:
    return recon("retention", "--before", before, "--reason", reason, "--json")


@EVERY_MODE
def test_declared_months_are_never_compared_again_and_their_counters_are_kept(billing: Billing) -> None:
    assert reconcile().outcome == "not_clean"

    declared = declare()

    assert declared.exit_code == 0, declared.said
    assert declared.json["retention"]["before_partition"] == "2025-06"
    billing.set_counter(CUSTOMERS[0], 12)
    billing.query("update billing_usage_counters set usage_count = 5 where period_start >= '2025-06-01 00:00Z'")
    ended = reconcile()
    assert (ended.outcome, ended.first_partition) == ("clean", "2025-06"), ended.error
    assert billing.counters() == {CUSTOMERS[0]: 12, CUSTOMERS[1]: 10, CUSTOMERS[2]: 10}
    assert billing.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 7)
    by_command = recon("reconcile", "--all", "--full", "--json")
    assert (by_command.exit_code, by_command.json["partitions"][0]) == (0, "2025-06"), by_command.said
    assert billing.counters()[CUSTOMERS[1]] == 10


@EVERY_MODE
def test_no_tick_takes_a_declared_month_whatever_happens_in_it(billing: Billing) -> None:
    reconcile()
    declare()
    billing.add_event(CUSTOMERS[0], 3)
    billing.query("delete from billing_usage_events where quantity = 3")
    run = new_run(billing.url, first="2025-05", last="2025-06")
    with run.decision() as (connection, tables):
        extent = Extent(SCOPE, BillingMonth.parse("2025-05"), BillingMonth.parse("2025-06"))
        mode = modes.choose(connection, tables).mode
        months = months_to_reconcile(connection, extent, tables, recent_days=35, mode=mode)
    assert "2025-05" not in [month.key for month in months]


@EVERY_MODE
def test_a_run_over_a_declared_month_says_that_it_is_no_longer_in_the_log(billing: Billing) -> None:
    declare()

    refused = recon("reconcile", "--period", "2025-05", "--json")

    assert refused.exit_code == 2
    assert "The period 2025-05 is not compared: the months before 2025-06 are no longer in the log" in refused.said
    assert REASON in refused.said
    replayed = run_assets(first="2025-05", last="2025-05")
    assert not replayed.success
    assert "no longer in the log" in replayed.errors
    assert run_assets(first="2025-05", last="2025-06").success
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)


@EVERY_MODE
def test_retention_doctor_and_status_show_what_is_declared(billing: Billing) -> None:
    assert recon("retention", "--json").json == {"success": True, "retention": None}
    assert recon("status", "--json").json["retention"] is None
    declare("2025-05")
    declare()

    shown = recon("retention", "--json").json["retention"]
    assert (shown["before_partition"], shown["reason"]) == ("2025-06", REASON)
    assert shown["declared_by"]
    for command in ("retention", "status", "doctor"):
        said = recon(command).said
        assert "months before 2025-06 are no longer in the log" in said.lower().replace("the months", "months")
        assert REASON in said
    assert billing.query("select before_partition from recon.retention order by id") == [("2025-05",), ("2025-06",)]


@EVERY_MODE
def test_a_month_that_is_declared_complete_again_is_compared_with_what_was_counted(billing: Billing) -> None:
    reconcile()
    declare()
    reconcile()
    declare("2025-05", "restored from the archive")

    ended = reconcile()

    assert [month["partition"] for month in ended.events_left_the_log or ()] == ["2025-05"]
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)
    for customer in CUSTOMERS:
        billing.add_event(customer, 10)
    assert reconcile().outcome == "clean"


@EVERY_MODE
def test_months_that_are_declared_complete_again_are_asked_about_before_they_are_repaired(
    mode: str, make_billing: MakeBilling, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of these months was ever summed, so nothing tells that events of theirs left."""
    monkeypatch.setenv("RECON_START_PERIOD", "2025-05")
    billing = make_billing(template="prepared" if mode == "incremental" else "prepared_full")
    billing.add_counter(CUSTOMERS[0], 10)
    billing.record(CUSTOMERS[0], 7, period=JUNE)
    declare()
    assert reconcile().outcome == "clean"
    declare("2025-05", "a month too late")
    billing.add_counter(CUSTOMERS[1], 4, period=JUNE)

    blocked = recon("reconcile", "--all")

    assert blocked.exit_code == 3
    assert "in months before 2025-06: 1 counter would be changed" in blocked.said
    assert billing.counters() == {CUSTOMERS[0]: 10}
    assert recon("reconcile", "--period", "2025-06").exit_code == 0, "what was accepted is repaired"
    assert "stripe:remote_commands before 2025-06 is repaired before its first run was approved" in recon("doctor").said
    assert recon("status", "--json").json["waiting_for_approval"] == []
    declare()
    assert recon("reconcile", "--all").exit_code == 0, "as the message advises"
    assert billing.counters() == {CUSTOMERS[0]: 10}


@EVERY_MODE
def test_the_first_run_of_a_usage_covers_all_that_is_in_the_log(billing: Billing) -> None:
    billing.query("delete from recon.accepted_usage")
    declare()
    billing.query("update billing_usage_counters set usage_count = 5 where period_start >= '2025-06-01 00:00Z'")
    assert reconcile().outcome == "blocked"

    assert reconcile(approve_reason="the log is right").outcome == "clean"
    assert billing.counters() == dict.fromkeys(CUSTOMERS, 10)
    assert billing.counters(period=JUNE) == dict.fromkeys(CUSTOMERS, 7)
    assert billing.value("select count(*) from recon.accepted_usage") == 1


@pytest.mark.parametrize("mode", ["incremental"])
@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--before", "2025-06"), "--before and --reason belong together, and only one of them was given."),
        (("--reason", REASON), "--before and --reason belong together, and only one of them was given."),
        (("--before", "2025-06", "--reason", " "), "--reason is ' ', which is empty or not printable text."),
        (("--before", "June", "--reason", REASON), "'June' is not a billing month."),
        (("--before", "9000-01", "--reason", REASON), "--before 9000-01 lies in the future: the current month is"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused_and_nothing_is_declared(
    billing: Billing, options: tuple[str, ...], what: str
) -> None:
    refused = recon("retention", *options, "--json")

    assert refused.exit_code == 2
    assert refused.json["error"].startswith(what)
    assert billing.value("select count(*) from recon.retention") == 0


def test_doctor_and_explain_say_which_months_are_no_longer_in_the_log(make_billing: MakeBilling) -> None:
    billing = make_billing()
    billing.record(CUSTOMERS[0], 10)
    billing.record(CUSTOMERS[0], 7, period=JUNE)
    declare()

    assumed = {one["about"]: one for one in recon("doctor", "--json").json["assumptions"]}
    assert "all events from 2025-06 on" in assumed["completeness"]["assumed"]
    assert assumed["completeness"]["learnt_from"] == "recon retention"
    of_may = recon("explain", "--customer", CUSTOMERS[0], "--period", "2025-05")
    assert "No run compares its counter: the months before 2025-06 are no longer in the log" in of_may.said
    assert REASON in of_may.said
    assert "No run compares" not in recon("explain", "--customer", CUSTOMERS[0]).said
