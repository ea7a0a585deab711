"""`recon reconcile` and `recon status`: what is asked is what runs, its end is the exit code, its JSON is true."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, DagsterInstance, DagsterRunStatus

from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline.settings import DEFAULT_START_PERIOD, RECENT_DAYS
from recon_pipeline.store.counters import chunks, repair
from recon_pipeline_tests.commands.conftest import MakeBilling, OwnServer, migrate, recon
from recon_pipeline_tests.reconciliation.billing import BIGINT_MAX, GATEWAY, USAGE, Billing, Period, connected
from recon_pipeline_tests.support.dagster import sensor_context
from recon_pipeline_tests.support.defined import alerts

DOCUMENTED = {
    "success", "blocked", "dry_run", "run_id", "partitions", "mode", "events_scanned", "counters_scanned",
    "drift_count", "drift_by_kind", "rows_repaired", "dedupe_count", "reconcile_failures",
    "over_quota_transitions", "under_quota_transitions", "duration_ms",
}  # fmt: skip
OF_SEVERAL_RUNS = {"run_ids", "errors"}
OF_THE_MODE = {"mode_reason", "rebuilt_because", "aggregates_differing"}
OF_THE_RUNBOOK = {"paused", "put_off", "held_count", "doubtful_count", "largest", "events_left_the_log"}
SHOWN = DOCUMENTED | OF_SEVERAL_RUNS | OF_THE_MODE | OF_THE_RUNBOOK
MAY = ("--period", "2025-05", "--json")
REASON = "the import of [May] was right"


def month(key: str) -> Period:
    named = BillingMonth.parse(key)
    return named.start, named.end


def current_month() -> BillingMonth:
    return BillingMonth.containing(datetime.now(UTC))


def checks(instance: DagsterInstance, run_id: str) -> dict[str, AssetCheckEvaluation]:
    """The check evaluations in a run's history, by name."""
    events = (entry.dagster_event for entry in instance.all_logs(run_id))
    found = [
        event.event_specific_data for event in events if event and event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {one.check_name: one for one in found if isinstance(one, AssetCheckEvaluation)}


def materialized(instance: DagsterInstance, run_id: str) -> dict[str, set[str | None]]:
    """The partitions in a run's history, by asset."""
    found: dict[str, set[str | None]] = {}
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is not None and event.is_step_materialization and event.asset_key is not None:
            found.setdefault(event.asset_key.to_user_string(), set()).add(event.partition)
    return found


def run_row(billing: Billing, run_id: str) -> Any:
    """The record of a run."""
    return billing.query("select * from recon.reconciliation_run where run_id = %s", run_id)[0]


def test_a_dry_run_repairs_nothing_a_run_repairs_it_and_status_shows_both(
    billing: Billing, run_history: DagsterInstance
) -> None:
    assert recon("status", "--json").exit_code == 1
    for customer, used, counted in (("a", 10, 3), ("b", 60, 40), ("c", 5, 5)):
        billing.record(customer, used)
        billing.set_counter(customer, counted)
    billing.add_event("d", 7)
    billing.add_counter("e", 60)
    before = billing.counters(), billing.log_checksum()

    looked = recon("reconcile", *MAY, "--dry-run")
    assert (looked.exit_code, looked.json["success"], looked.json["dry_run"]) == (1, False, True)
    assert (looked.json["drift_count"], looked.json["rows_repaired"]) == (4, 0)
    assert (billing.counters(), billing.log_checksum()) == before
    assert billing.ledger() == []
    assert recon("status").exit_code == 1

    repaired = recon("reconcile", *MAY)
    assert repaired.exit_code == 0
    figures = repaired.json
    assert set(figures) == SHOWN
    assert figures.pop("duration_ms") > 0
    run_id = figures["run_id"]
    assert figures == {
        "success": True, "blocked": False, "paused": False, "put_off": False, "dry_run": False, "run_id": run_id,
        "run_ids": [run_id],
        "partitions": ["2025-05"], "mode": "incremental", "mode_reason": None, "rebuilt_because": None,
        "aggregates_differing": None, "events_scanned": 4, "counters_scanned": 4, "drift_count": 4,
        "drift_by_kind": {"missing": 1, "under": 2, "over": 0, "orphan": 1}, "rows_repaired": 4, "dedupe_count": 0,
        "held_count": 0, "doubtful_count": 0, "events_left_the_log": [], "reconcile_failures": 0,
        "over_quota_transitions": 1, "under_quota_transitions": 1,
        "errors": [],
        "largest": [],
    }  # fmt: skip
    assert billing.counters() == {"a": 10, "b": 60, "c": 5, "d": 7, "e": 0}
    assert len(billing.ledger()) == 4
    assert billing.log_checksum() == before[1]

    again = recon("reconcile", "--period", "2025-05", "--dry-run")
    assert again.exit_code == 0
    assert "none: dry run" in again.out

    status = recon("status", "--json")
    assert status.exit_code == 0
    assert set(status.json) == {
        "success", "database", "mode", "mode_reason", "waiting_for_approval", "paused", "holds", "last_clean_at",
        "runs", "alerts", "retention", "sealed_months", "newest_sealed_month",
    }  # fmt: skip
    assert [run["outcome"] for run in status.json["runs"]] == ["compared", "clean", "compared"]
    assert status.json["runs"][1]["run_id"] == run_id
    assert "clean" in recon("status").out


def test_a_run_is_in_dagsters_history_with_its_partitions_its_checks_and_its_user(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.add_event("a", 7)
    output = recon("reconcile", "--period", "2025-05", "--period", "2025-04", "--json")

    run = run_history.get_run_by_id(output.json["run_id"])
    assert run is not None
    assert (run.job_name, run.status) == ("reconcile", DagsterRunStatus.SUCCESS)
    assert run.tags["user"]
    assets = materialized(run_history, run.run_id)
    assert set(assets) == {"usage_events", "usage_aggregates", "counter_drift", "repaired_counters"}
    assert all(partitions == {"2025-04", "2025-05"} for partitions in assets.values())
    found = checks(run_history, run.run_id)
    assert {"event_log_is_visible", "drift_is_within_budgets", "counters_match_event_sums"} <= set(found)
    assert found["counters_match_event_sums"].passed


def test_months_that_are_not_contiguous_are_one_run_for_each_range(
    billing: Billing, run_history: DagsterInstance
) -> None:
    asked = ["2025-09", "2025-05", "2025-06", "2025-05"]
    for key in {*asked, "2025-07"}:
        billing.add_event("a", 7, period=month(key))

    output = recon("reconcile", "--json", *(part for key in asked for part in ("--period", key)))

    assert output.exit_code == 0
    assert output.json["partitions"] == ["2025-05", "2025-06", "2025-09"]
    assert (output.json["rows_repaired"], output.json["events_scanned"]) == (3, 3)
    assert output.json["run_id"] == output.json["run_ids"][0]
    assert [materialized(run_history, run_id)["repaired_counters"] for run_id in output.json["run_ids"]] == [
        {"2025-05", "2025-06"},
        {"2025-09"},
    ]
    assert billing.counters(period=month("2025-07")) == {}


def test_with_customers_only_their_counters_change(billing: Billing, run_history: DagsterInstance) -> None:
    for customer in ("a", "b", "c"):
        billing.add_event(customer, 7)

    output = recon("reconcile", *MAY, "--customer", "a", "--customer", "c")

    assert output.exit_code == 0
    assert output.json["drift_count"] == 2
    assert billing.counters() == {"a": 7, "c": 7}
    assert recon("status").exit_code == 1, "a run over some customers says nothing of all"


RECENTLY = datetime.now(UTC) - timedelta(days=RECENT_DAYS)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_without_options_it_takes_the_months_that_a_tick_would(
    make_billing: MakeBilling, run_history: DagsterInstance, mode: str
) -> None:
    billing = make_billing(template="prepared" if mode == "incremental" else "prepared_full")
    current, idle, late = current_month(), "2025-02", "2025-04"
    long_ago = datetime(2025, 2, 3, tzinfo=UTC)
    billing.add_event("now", 3, period=(current.start, current.end))
    billing.add_event("idle", 3, period=month(idle), created_at=long_ago)
    billing.add_counter("idle", 3, period=month(idle), updated_at=long_ago)

    first = recon("reconcile", "--json")
    assert (first.exit_code, first.json["mode"]) == (0, mode)
    every_month = [one.key for one in months_between(BillingMonth.parse(DEFAULT_START_PERIOD), current)]
    unverified = every_month if mode == "incremental" else [idle, current.key]
    assert first.json["partitions"] == unverified, "no run has verified it yet"

    billing.add_event("late", 3, period=month(late))
    second = recon("reconcile", "--json")
    assert (second.exit_code, second.json["rows_repaired"]) == (0, 1)
    lately = [one.key for one in months_between(BillingMonth.containing(RECENTLY), current)]
    assert second.json["partitions"] == [late, *(lately if mode == "incremental" else [current.key])]


def test_an_empty_log_beside_counters_is_blocked_until_a_person_approves_it_with_a_reason(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.add_counter("a", 60)

    blocked = recon("reconcile", *MAY)
    assert blocked.exit_code == 3
    assert (blocked.json["success"], blocked.json["blocked"]) == (False, True)
    assert [(key["gateway_customer_id"], key["difference"]) for key in blocked.json["largest"]] == [("a", "-60")]
    assert set(blocked.json) == SHOWN
    assert f"Not one event of {GATEWAY}:{USAGE} is visible" in blocked.json["errors"][0]
    assert billing.counters() == {"a": 60}
    assert not checks(run_history, blocked.json["run_id"])["event_log_is_visible"].passed
    assert recon("status").exit_code == 1

    shown = recon("reconcile", *MAY, "--approve", REASON)
    assert (shown.exit_code, shown.json["rows_repaired"]) == (1, 0)
    assert shown.json["events_left_the_log"] == [{"partition": "2025-05", "keys": 1, "events": 0, "units": "60"}]
    approved = recon("reconcile", *MAY, "--approve", REASON)
    assert (approved.exit_code, approved.json["rows_repaired"]) == (0, 1)
    record = run_row(billing, approved.json["run_id"])
    assert record.approved_reason == REASON
    assert record.approved_by
    assert billing.ledger() == [("a", "orphan", 60, 0)]


@pytest.mark.parametrize("budget", ["RECON_MAX_REPAIRS", "RECON_MAX_OVER_QUOTA_TRANSITIONS"])
def test_a_repair_beyond_a_budget_is_blocked_until_a_person_approves_it(
    billing: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch, budget: str
) -> None:
    monkeypatch.setenv(budget, "1")
    for customer in ("a", "b"):
        billing.add_event(customer, 50)

    plain = recon("reconcile", "--period", "2025-05", "--dry-run")
    assert plain.exit_code == 3
    assert f"{budget} allows 1" in plain.said
    blocked = recon("reconcile", *MAY)
    assert (blocked.exit_code, blocked.json["blocked"]) == (3, True)
    assert f"2 {'counters' if budget == 'RECON_MAX_REPAIRS' else 'customers'} would" in blocked.json["errors"][0]
    assert billing.counters() == {}
    assert billing.ledger() == []

    approved = recon("reconcile", *MAY, "--approve", REASON)
    assert (approved.exit_code, approved.json["rows_repaired"]) == (0, 2)
    assert run_row(billing, approved.json["run_id"]).approved_reason == REASON
    assert "Approved by" in (checks(run_history, approved.json["run_id"])["drift_is_within_budgets"].description or "")


def test_a_locked_counter_is_deferred_with_a_warning_and_the_next_run_repairs_it(
    billing: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "COUNTER_LOCK_TIMEOUT_MS", 20)
    for customer in ("a", "b"):
        billing.record(customer, 7)
        billing.set_counter(customer, 1)
    with billing.session() as application:
        application.query("select * from billing_usage_counters where gateway_customer_id = 'a' for update")
        output = recon("reconcile", *MAY)
        shown = recon("status").said

    assert (output.exit_code, output.json["rows_repaired"], output.json["reconcile_failures"]) == (1, 1, 0)
    assert billing.counters() == {"a": 1, "b": 7}
    check = checks(run_history, output.json["run_id"])["counters_match_event_sums"]
    assert (check.passed, check.severity.name) == (False, "WARN")
    assert "locked by another session and deferred" in (check.description or "")
    assert "not clean" in shown
    assert recon("reconcile", *MAY).exit_code == 0
    assert billing.counters() == {"a": 7, "b": 7}


def test_a_sum_past_bigint_fails_one_key_and_all_others_are_repaired(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing("alter table billing_usage_events alter column quantity type bigint")
    for customer in ("a", "b", "b", "c"):
        billing.add_event(customer, BIGINT_MAX if customer == "b" else 7)

    output, shown = recon("reconcile", *MAY), recon("reconcile", "--period", "2025-05")

    assert (output.exit_code, output.json["rows_repaired"], output.json["reconcile_failures"]) == (1, 2, 1)
    assert (output.json["drift_count"], output.json["success"], output.json["blocked"]) == (3, False, False)
    assert billing.counters() == {"a": 7, "b": 0, "c": 7}, "a missing row is inserted at 0, then locked and summed"
    assert shown.exit_code == 1
    assert "counters_match_event_sums" in shown.out
    assert "event_sums_fit_counters" in shown.out


def test_without_subscriptions_quota_figures_are_said_to_be_unknown_and_the_rest_works(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing("drop table billing_subscriptions")
    billing.add_event("a", 60)

    output = recon("reconcile", "--period", "2025-05")

    assert output.exit_code == 0
    assert "There is no table billing_subscriptions, so quota transitions are unknown" in output.said
    assert billing.counters() == {"a": 60}
    assert "quota transitions are unknown" in recon("doctor").said


@pytest.mark.parametrize(
    ("breakage", "said", "fix"),
    [
        ("drop table billing_usage_events", "There is no table billing_usage_events", "--with-billing-tables"),
        ("drop table billing_usage_counters", "There is no table billing_usage_counters", "--with-billing-tables"),
        (
            "alter table billing_usage_events drop column quantity",
            "billing_usage_events has no column quantity",
            "search_path",
        ),
        ("drop schema recon cascade", "was never prepared", "recon init"),
        (
            "do $$ begin execute format('alter database %I set default_transaction_read_only = on', "
            "current_database()); end $$",
            "read-only transaction",
            "reset default_transaction_read_only",
        ),
    ],
)
def test_a_database_that_is_not_as_it_must_be_is_refused_with_the_cause_and_its_fix(
    make_billing: MakeBilling, run_history: DagsterInstance, breakage: str, said: str, fix: str
) -> None:
    make_billing(breakage)
    for arguments in (MAY, ("--json",)):
        output = recon("reconcile", *arguments)
        assert output.exit_code == 1
        assert not output.json["blocked"]
        assert said in output.said
        assert fix in output.said


def test_hostile_names_are_shown_as_they_are(billing: Billing, run_history: DagsterInstance) -> None:
    scope = "[/bold]'; drop table billing_usage_events; --:[red]%s{x}"
    gateway, _, usage = scope.partition(":")
    billing.add_counter("[/x]", 60)
    billing.query("update billing_usage_counters set gateway_name = %s, usage_type = %s", gateway, usage)
    output = recon("reconcile", "--period", "2025-05", "--customer", "[/x]", RECON_SCOPE=scope)
    assert output.exit_code == 3
    assert scope in output.said
    assert billing.value("select count(*) from billing_usage_events") == 0


def test_a_container_user_without_a_name_can_reconcile(
    billing: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nameless)
    output = recon("reconcile", *MAY)
    assert output.exit_code == 0
    run = run_history.get_run_by_id(output.json["run_id"])
    assert run is not None
    assert run.tags["user"] == f"uid {os.getuid()}"


def test_a_database_that_stops_in_the_middle_of_a_run_is_reported_and_the_next_run_finishes(
    own_server: OwnServer, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = own_server.create_database("stopping", migrate)
    monkeypatch.setenv("DATABASE_URL", url)
    names = [f"customer_{number}" for number in range(8)]
    with connected(url, autocommit=True) as connection:
        application = Billing(url, connection)
        for name in names:
            application.add_event(name, 7)
    alerts(sensor_context(run_history, ""))
    whole = repair.repair

    def stopped_after_a_chunk(*args: Any, **more: Any) -> Any:
        return whole(*args, **more, on_progress=lambda _: own_server.stop())

    with monkeypatch.context() as patch:
        patch.setattr(repair, "CHUNK_KEYS", 40)
        patch.setattr(repair, "repair", stopped_after_a_chunk)
        output = recon("reconcile", *MAY)
    own_server.start()

    assert output.exit_code == 1
    assert "could not be reached, or the connection was lost" in output.json["error"]
    assert "committed before stays" in output.json["changed"]
    assert "run again, finishes the work" in output.json["changed"]
    with connected(url, autocommit=True) as connection:
        billing = Billing(url, connection)
        assert billing.counters() == dict.fromkeys(names[:2], 7)
        assert len(billing.ledger()) == 2
        (left_open,) = billing.query("select run_id, outcome from recon.reconciliation_run")
        assert left_open.outcome == "running"

        alerts(sensor_context(run_history, ""))
        record = run_row(billing, left_open.run_id)
        assert (record.outcome, record.reconcile_failures) == ("failed", 1)
        assert "whole chunks of repairs are done" in record.error

        assert recon("reconcile", *MAY).exit_code == 0
        assert billing.counters() == dict.fromkeys(names, 7)
        assert len(billing.ledger()) == 8


def test_dagsters_storage_lost_in_the_middle_of_a_run_is_reported_without_a_traceback(
    billing: Billing,
    own_server: OwnServer,
    run_history: DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    billing.add_event("a", 7)
    whole = repair.repair

    def stop_afterwards(*args: Any, **more: Any) -> Any:
        outcome = whole(*args, **more)
        own_server.stop()
        return outcome

    class Clock:
        sleep = staticmethod(lambda _: None)

    monkeypatch.setattr("dagster_postgres.utils.time", Clock)
    monkeypatch.setattr(repair, "repair", stop_afterwards)
    output = recon("reconcile", *MAY, DAGSTER_PG_URL=own_server.create_database("dagster"))
    own_server.start()

    assert output.exit_code == 1
    assert "Dagster's storage cannot be reached" in output.json["error"]
    assert "Repairs that were committed before stay" in output.json["changed"]
    assert billing.counters() == {"a": 7}
