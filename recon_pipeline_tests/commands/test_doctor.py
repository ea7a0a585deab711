"""`recon doctor`: all is well where all is well, and each single thing that is broken is the one that fails."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dagster import DagsterInstance
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, ScheduleInstigatorData

from recon_pipeline.core.findings import Verdict
from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, beating_daemon, recon
from recon_pipeline_tests.reconciliation.billing import MAY, Billing

SCHEDULE = "reconcile_every_5_minutes"


def findings(output: CommandResult) -> dict[str, dict[str, Any]]:
    """The findings of `--json`, by requirement."""
    assert set(output.json) == {"success", "findings", "assumptions"}
    found = {finding["requirement"]: finding for finding in output.json["findings"]}
    assert len(found) == len(output.json["findings"])
    for finding in found.values():
        assert set(finding) == {"requirement", "verdict", "detail", "mend"}
        assert bool(finding["mend"]) or finding["verdict"] != Verdict.FAIL
    return found


def with_verdict(output: CommandResult, verdict: Verdict) -> set[str]:
    return {name for name, finding in findings(output).items() if finding["verdict"] == verdict}


def test_a_good_database_with_a_live_daemon_passes(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    make_billing()
    beating_daemon(dagster_instance)
    output = recon("doctor", "--json")
    assert output.exit_code == 0, output.said
    assert with_verdict(output, Verdict.FAIL) == set()
    shown = recon("doctor")
    assert shown.exit_code == 0
    assert "Everything a run relies on is there." in shown.out


@pytest.mark.parametrize(
    ("breakage", "requirement", "fix"),
    [
        ("drop table billing_usage_events", "billing_usage_events", "recon init --with-billing-tables"),
        ("drop table billing_usage_counters", "billing_usage_counters", "recon init --with-billing-tables"),
        ("alter table billing_usage_events drop column quantity", "billing_usage_events columns", "Check that"),
        (
            "alter table billing_usage_events alter id drop default, alter id type text",
            "billing_usage_events columns",
            "Check that",
        ),
        ("alter table billing_usage_counters drop column updated_at", "billing_usage_counters columns", "Check that"),
        ("alter table billing_subscriptions drop column status", "billing_subscriptions columns", "Check that"),
        (
            "alter table billing_usage_counters drop constraint "
            "billing_usage_counters_gateway_name_gateway_customer_id_usa_key",
            "counter key",
            "create unique index concurrently on billing_usage_counters",
        ),
        (
            "alter table billing_usage_counters alter id drop default",
            "counter id",
            "alter table billing_usage_counters alter column id set default gen_random_uuid();",
        ),
        ("drop schema recon cascade", "schema recon", "recon init"),
        ("delete from recon.schema_version", "schema recon", "recon init"),
        ("update recon.schema_version set version_num = '9999'", "schema recon", "Run the release that prepared it"),
        (
            "do $$ begin execute format('alter database %I set default_transaction_read_only = on', "
            "current_database()); end $$",
            "primary",
            "Point DATABASE_URL at the primary.",
        ),
        (
            "do $$ begin execute format('alter database %I set search_path = elsewhere', current_database()); end $$",
            "billing_usage_events,billing_usage_counters",
            "set search_path",
        ),
    ],
)
def test_each_thing_that_is_broken_is_the_one_that_fails_with_its_fix(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, breakage: str, requirement: str, fix: str
) -> None:
    make_billing(breakage)
    beating_daemon(dagster_instance)
    output = recon("doctor", "--json")
    assert output.exit_code == 1
    assert with_verdict(output, Verdict.FAIL) == set(requirement.split(","))
    assert all(fix in findings(output)[name]["mend"] for name in requirement.split(","))


@pytest.mark.parametrize(
    ("difference", "requirement"),
    [
        ("drop table billing_subscriptions", "billing_subscriptions"),
        ("drop index billing_usage_events_customer", "events by customer"),
        ("drop index billing_usage_counters_period", "counters by period"),
        ("create index on billing_usage_counters (period_start, usage_type)", "counters by period"),
        (
            "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key",
            "event identity,mode",
        ),
        ("alter table billing_usage_counters alter period_end type timestamptz(3)", "periods"),
    ],
)
def test_what_is_only_different_is_noted_and_prevents_no_run(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, difference: str, requirement: str
) -> None:
    make_billing(difference)
    beating_daemon(dagster_instance)
    output = recon("doctor", "--json")
    assert output.exit_code == 0
    # The tests' role is the tables' owner, who could change events.
    assert with_verdict(output, Verdict.NOTE) == {*requirement.split(","), "event log is sacred", "alerts"}


def switch_off(instance: DagsterInstance) -> None:
    location = RegisteredCodeLocationOrigin("recon_pipeline")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), SCHEDULE)
    state = InstigatorState(
        origin, InstigatorType.SCHEDULE, InstigatorStatus.STOPPED, ScheduleInstigatorData("*/5 * * * *")
    )
    instance.add_instigator_state(state)
    beating_daemon(instance)


def test_before_a_daemon_was_ever_started_the_schedule_is_noted_and_everything_passes(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    make_billing()
    output = recon("doctor", "--json")
    assert output.exit_code == 0
    schedule = findings(output)["schedule"]
    assert schedule["verdict"] == Verdict.NOTE
    assert "no Dagster daemon was started here yet" in schedule["detail"]
    assert "recon dev" in schedule["mend"]


def stop_beating(instance: DagsterInstance) -> None:
    beating_daemon(instance, at=datetime.now(UTC) - timedelta(hours=1))


@pytest.mark.parametrize(
    ("breakage", "said", "fix"),
    [
        (stop_beating, "no Dagster daemon is alive", "recon dev"),
        (switch_off, f"{SCHEDULE} was switched off", "Automation"),
    ],
)
def test_a_schedule_that_nobody_runs_fails(
    make_billing: MakeBilling,
    dagster_instance: DagsterInstance,
    breakage: Callable[[DagsterInstance], None],
    said: str,
    fix: str,
) -> None:
    make_billing()
    breakage(dagster_instance)
    output = recon("doctor", "--json")
    assert output.exit_code == 1
    assert with_verdict(output, Verdict.FAIL) == {"schedule"}
    schedule = findings(output)["schedule"]
    assert said in schedule["detail"]
    assert fix in schedule["mend"]


@pytest.mark.parametrize("url", [None, "mysql://app:hunter2secret@host/dagster"])
def test_dagsters_storage_that_is_not_named_fails_and_the_rest_is_looked_at_all_the_same(
    make_billing: MakeBilling, url: str | None
) -> None:
    make_billing()
    output = recon("doctor", "--json", DAGSTER_PG_URL=url)
    assert output.exit_code == 1
    assert with_verdict(output, Verdict.FAIL) == {"Dagster storage"}
    assert "DAGSTER_PG_URL" in findings(output)["Dagster storage"]["mend"]
    assert "limits" in findings(output)
    assert "hunter2secret" not in output.out + output.err


def test_before_recon_init_doctor_says_that_the_database_is_not_prepared(
    make_billing: MakeBilling,
) -> None:
    make_billing(template="billing")

    output = recon("doctor", "--json")

    assert findings(output)["schema recon"]["verdict"] == Verdict.FAIL
    learnt = {one["about"]: one["learnt_from"] for one in output.json["assumptions"]}
    assert learnt["identity"] == (
        "RECON_EVENT_IDENTITY; the database is not prepared for this release yet; recon init compares it with "
        "the log's unique keys"
    )


def test_doctor_changes_nothing(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")

    def no_transaction_wrote() -> bool:
        before = billing.value("select pg_current_snapshot()")
        recon("doctor")
        return billing.value("select pg_current_snapshot()") == before

    # An autovacuum that happens to run writes too, but not again and again.
    assert any(no_transaction_wrote() for _ in range(5))


@pytest.mark.parametrize(
    ("check", "is_refusing"),
    [
        ("usage_count >= 0", True),
        ("usage_count > -1", True),
        ("usage_count >= 0::numeric", True),
        ("usage_count >= -1000", False),
        ("usage_count <> 7", False),
    ],
)
def test_a_counter_that_cannot_go_below_zero_is_named_where_credits_are_declared(
    billing: Billing, orchestrated: None, check: str, *, is_refusing: bool
) -> None:
    billing.query(
        "alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check, "
        f'add constraint "No credit" check ({check})'
    )

    declared = recon("doctor", "--json", RECON_NEGATIVE_QUANTITIES="sum")

    (found,) = [one for one in declared.json["findings"] if one["requirement"] == "negative sums"]
    assert found["verdict"] == ("note" if is_refusing else "pass"), found
    if is_refusing:
        assert 'billing_usage_counters has "No credit" CHECK' in found["detail"]
        assert found["mend"] == (
            "If customers can have more credits than usage: "
            'alter table billing_usage_counters drop constraint "No credit";'
        )
    assert "negative sums" not in recon("doctor").out


def test_a_paid_subscription_with_other_times_of_day_than_the_counter_is_named(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    """Its customer was blocked at the free limit, and nobody saw why."""
    beating_daemon(dagster_instance)
    billing = make_billing()
    at_ten = timedelta(hours=10)
    for customer, late in (("same", timedelta()), ("later", at_ten), ("day after", timedelta(days=1))):
        billing.record(customer, 1)
        billing.subscribe(customer, period=(MAY[0] + late, MAY[1] + late))
    billing.record("canceled", 1)
    billing.subscribe("canceled", period=(MAY[0] + at_ten, MAY[1] + at_ten), status="canceled")

    found = findings(recon("doctor", "--json"))["subscription periods"]

    assert (found["verdict"], found["detail"]) == (
        Verdict.NOTE,
        "1 counters of stripe:remote_commands have the period of a paid subscription, but other times of day, so that "
        "it does not cover them, and the free limit is theirs; for example later: counter 2025-05-01 to 2025-06-01, "
        "subscription 2025-05-01 10:00:00 to 2025-06-01 10:00:00",
    )
    assert found["mend"].startswith(
        "Have the application write events and counters with the bounds of the subscription"
    )
    billing.query("update billing_subscriptions set current_period_start = %s, current_period_end = %s", *MAY)
    assert findings(recon("doctor", "--json"))["subscription periods"]["verdict"] == Verdict.PASS
