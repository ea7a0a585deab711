"""What people did by command is shown in Dagster by the sensor `alerts`: once, whatever happened in between."""

import json
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, SensorResult

from recon_pipeline.assets.names import Names
from recon_pipeline.automation import shown_actions
from recon_pipeline.automation.alert_sensor import alerts
from recon_pipeline.automation.installation import Installation
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.dagster import sensor_context

WHY = ("--reason", "INC-1: [b]restoring[/b] the log")


def evaluate(instance: DagsterInstance, cursor: str | None = None, name: str = "") -> str:
    """One evaluation of the sensor; its cursor for the next one."""
    result: Any = alerts(Installation(Names(name)))(sensor_context(instance, cursor))
    assert isinstance(result, SensorResult)
    assert result.cursor is not None
    return result.cursor


def shown(instance: DagsterInstance, asset: str = "repaired_counters") -> list[str]:
    """What the observations of the repaired counters say, the oldest first."""
    records = instance.fetch_observations(AssetKey(asset.split("/")), limit=100, ascending=True).records
    return [one.asset_observation.description or "" for one in records if one.asset_observation]


@pytest.fixture
def customers(billing: Billing) -> Billing:
    """Customers `a` and `b`."""
    for customer in ("a", "b"):
        billing.add_counter(customer, 1)
    return billing


def test_each_command_is_shown_once_with_who_why_and_when(
    customers: Billing, dagster_instance: DagsterInstance
) -> None:
    cursor = evaluate(dagster_instance)
    assert recon("pause", *WHY, "--until", "2h").exit_code == 0
    assert recon("hold", "--customer", "a", "--customer", "b", *WHY, "--until", "3d").exit_code == 0
    assert shown(dagster_instance) == []

    cursor = evaluate(dagster_instance, cursor)

    user, until = customers.query(
        "select acted_by, to_char(until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') from recon.control"
    )[0]
    paused, held = shown(dagster_instance)
    assert paused == f"Repairs were paused by {user} until {until} UTC. Reason: {WHY[1]}"
    assert held.startswith(f"Held by {user} until ")
    assert held.endswith(f" UTC: a, b. Reason: {WHY[1]}")

    assert recon("release", "--customer", "a").exit_code == 0
    assert recon("resume").exit_code == 0
    assert recon("retention", "--before", "2025-02", *WHY).exit_code == 0
    cursor = evaluate(dagster_instance, cursor)
    evaluate(dagster_instance, cursor)
    assert shown(dagster_instance)[2:] == [
        f"Released by {user}: a",
        f"Repairs were resumed by {user}",
        f"Declared by {user}: the months before 2025-02 are no longer in the log. Reason: {WHY[1]}",
    ]
    record = dagster_instance.fetch_observations(AssetKey("repaired_counters"), limit=5).records[-1]
    assert record.asset_observation is not None
    done_at = customers.value("select acted_at from recon.control order by id limit 1")
    assert record.asset_observation.metadata["done_at"].value == pytest.approx(done_at.timestamp())


def test_a_crash_after_the_observation_or_a_cursor_that_was_reset_shows_nothing_twice(
    customers: Billing, dagster_instance: DagsterInstance
) -> None:
    before = evaluate(dagster_instance)
    recon("pause", *WHY)
    evaluate(dagster_instance, before)  # and its cursor is lost
    evaluate(dagster_instance, before)
    evaluate(dagster_instance, None)
    assert len(shown(dagster_instance)) == 1


def test_what_was_done_while_the_sensor_was_off_for_days_is_shown_when_it_is_on_again(
    customers: Billing, dagster_instance: DagsterInstance
) -> None:
    cursor = json.loads(evaluate(dagster_instance))
    recon("hold", "--customer", "a", *WHY, "--until", "30d")
    customers.query("update recon.hold set held_at = held_at - interval '4 days'")
    cursor["shown_until"] = customers.value("select clock_timestamp() - interval '5 days'").isoformat()
    evaluate(dagster_instance, json.dumps(cursor))
    assert len(shown(dagster_instance)) == 1


def test_what_commits_after_a_later_action_was_shown_is_not_passed_over(
    customers: Billing, dagster_instance: DagsterInstance
) -> None:
    cursor = evaluate(dagster_instance)
    recon("pause", *WHY)
    cursor = evaluate(dagster_instance, cursor)
    # A declaration waits up to 30 seconds for a run, and becomes visible then.
    customers.query(
        "insert into recon.retention (before_partition, reason, declared_by, declared_at) "
        "values ('2025-02', 'archived', 'somebody', clock_timestamp() - interval '30 seconds')"
    )
    evaluate(dagster_instance, cursor)
    assert shown(dagster_instance)[1].startswith("Declared by somebody: the months before 2025-02")


def test_a_dagster_whose_history_is_new_shows_the_last_day_only(
    customers: Billing, dagster_instance: DagsterInstance
) -> None:
    recon("hold", "--customer", "a", *WHY, "--until", "30d")
    customers.query("update recon.hold set held_at = held_at - interval '2 days'")
    recon("hold", "--customer", "b", *WHY, "--until", "30d")
    evaluate(dagster_instance)
    (held,) = shown(dagster_instance)
    assert ": b." in held


def test_another_database_whose_actions_are_numbered_alike_is_shown_too(
    make_billing: Any, dagster_instance: DagsterInstance
) -> None:
    for _ in range(2):
        make_billing()
        recon("pause", *WHY)
        evaluate(dagster_instance)
    assert len(shown(dagster_instance)) == 2


def test_each_installation_shows_it_on_its_own_counters(customers: Billing, dagster_instance: DagsterInstance) -> None:
    recon("pause", *WHY)
    for name in ("eu", "us"):
        evaluate(dagster_instance, name=name)
        assert len(shown(dagster_instance, Names(name).key("repaired_counters").to_user_string())) == 1
    assert shown(dagster_instance) == []


def test_thousands_of_held_customers_are_one_observation_and_many_commands_are_shown_in_turns(
    customers: Billing, dagster_instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_actions, "SHOWN_AT_ONCE", 2)
    cursor = evaluate(dagster_instance)
    customers.query(
        "insert into recon.hold (gateway_customer_id, reason, held_by, until) "
        "select 'cus_' || n, 'many', 'somebody', now() + interval '1 day' from generate_series(1, 3000) as n"
    )
    for _ in range(4):
        recon("pause", *WHY)
    for turns in (2, 4, 5, 5):
        cursor = evaluate(dagster_instance, cursor)
        assert len(shown(dagster_instance)) == turns
    assert shown(dagster_instance)[0].endswith(", cus_20 and 2,980 more. Reason: many")


def test_a_cursor_of_an_earlier_release_is_understood(customers: Billing, dagster_instance: DagsterInstance) -> None:
    cursor = evaluate(dagster_instance, json.dumps({"since": "2026-11-24T20:00:00+00:00", "told_at": None}))
    assert json.loads(cursor)["since"] is None
