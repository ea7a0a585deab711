"""Refuse to be fooled, and the blast radius: what a run must not take for granted, and what it may do only once.

Budgets here are the defaults, or what a test says.
"""

import pytest
from dagster import AssetCheckSeverity

from recon_pipeline.core.guards import Budgets
from recon_pipeline_tests.adversary.world import APPROVED, World, fill_by_sql
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.pipeline import NO_BUDGETS
from recon_pipeline_tests.support.assets import run_assets

KEYS = 1_200
FEW = Budgets(max_repairs=100, max_repair_share=1.0, max_orphan_share=1.0, max_over_quota_transitions=10**6)
END_SESSIONS = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'recon_pipeline'
"""
OUTSIDE = {
    "long before the first month": "'2001-05-01 00:00Z', '2001-06-01 00:00Z'",
    "far in the future": "'2190-05-01 00:00Z', '2190-06-01 00:00Z'",
    "at no time": "'infinity', 'infinity'",
    "before all time": "'-infinity', '2025-06-01 00:00Z'",
}


def test_counters_that_another_table_inherits_from_are_refused(world: World) -> None:
    """A query finds the heirs' rows too, and no unique key covers them."""
    world.begin_settled(customers(5))
    world.billing.query("update billing_usage_counters set usage_count = 5")
    world.billing.query("create table old_counters () inherits (billing_usage_counters)")

    ended = world.run()

    assert ended.outcome == "failed"
    assert "inherit" in ended.error.lower()
    assert "What to do" in ended.error
    assert world.repaired() == []


def test_counters_that_inherit_from_another_table_are_no_reason_to_refuse(world: World) -> None:
    world.billing.query("create table any_counter (usage_count bigint)")
    world.billing.query("alter table billing_usage_counters inherit any_counter")
    world.fill(customers(5))

    assert world.run().outcome == "clean"


@pytest.mark.parametrize("where", OUTSIDE)
def test_events_outside_the_known_months_are_counted_by_a_check_that_fails(
    world: World, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin_settled(
        customers(5), tables="alter table billing_usage_events drop constraint billing_usage_events_check"
    )
    for number in range(3):
        world.billing.query(
            "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, "
            f"period_start, period_end) values ('stripe', 'lost', 'remote_commands', %s, {OUTSIDE[where]})",
            f"outside {number}",
        )
    monkeypatch.setenv("DATABASE_URL", world.billing.url)

    result = run_assets(full=True) if world.mode == "audit" else run_assets()

    assert result.success, result.errors
    failing = [check for check in result.checks.values() if not check.passed]
    counted = [check for check in failing if 3 in [entry.value for entry in check.metadata.values()]]
    assert counted, [(check.check_name, check.description) for check in failing]
    assert all(check.severity is AssetCheckSeverity.WARN for check in failing)
    assert world.repaired() == []


@pytest.mark.timeout(120)
def test_an_approval_that_a_run_used_to_repair_half_does_not_approve_another_run(world: World) -> None:
    fill_by_sql(world.billing, KEYS)
    world.settle_in()
    world.billing.query("update billing_usage_counters set usage_count = 7")
    assert world.run(budgets=FEW).outcome == "blocked"

    def end_once_some_are_repaired(_: int) -> None:
        if world.billing.value("select count(*) from recon.counter_repair"):
            world.billing.query(END_SESSIONS)

    half = world.run(budgets=FEW, approve=APPROVED, between=end_once_some_are_repaired)
    repaired = len(world.repaired())
    assert half.outcome == "failed"
    assert repaired > 0
    if repaired == KEYS:
        pytest.skip("all keys were repaired before the connection was lost")
    world.billing.query("update billing_usage_counters set usage_count = 7")

    again = world.run(budgets=FEW, approve=APPROVED)

    assert again.outcome == "blocked"
    assert len(world.repaired()) == repaired
    assert world.run(budgets=FEW, approve=APPROVED).outcome == "clean", "the second block was shown, and is approved"


@pytest.mark.timeout(120)
def test_a_loss_that_stays_below_the_budget_of_each_run_is_blocked_by_that_of_the_day(world: World) -> None:
    keys, part = 1_000, 90
    fill_by_sql(world.billing, keys, events=2)
    world.settle_in()
    outcomes: list[str] = []
    for number in range(10):
        world.billing.query(
            "update billing_usage_counters set usage_count = 1 where gateway_customer_id = any(%s)",
            [f"customer_{number * part + key:07}" for key in range(1, part + 1)],
        )
        outcomes.append(world.run(budgets=Budgets()).outcome)

    assert outcomes[0] == "clean"
    assert outcomes[-1] == "blocked", outcomes
    assert len(world.repaired()) <= keys // 2, outcomes


@pytest.mark.timeout(120)
def test_events_that_are_erased_a_few_at_a_time_lower_no_more_counters_than_the_budget_of_the_day(
    incremental: World,
) -> None:
    world = incremental
    keys, part = 1_000, 90
    fill_by_sql(world.billing, keys)
    world.settle_in()
    outcomes: list[str] = []
    for number in range(10):
        world.billing.query(
            "delete from billing_usage_events where gateway_customer_id = any(%s)",
            [f"customer_{number * part + key:07}" for key in range(1, part + 1)],
        )
        outcomes.append(world.run(budgets=Budgets(max_orphan_share=0.1, max_events_left=10**9)).outcome)

    assert outcomes[-1] == "blocked", outcomes
    assert len([row for row in world.repaired() if row[2] == 0]) <= keys // 2, outcomes


def test_a_dry_run_uses_up_no_budget_and_no_approval(incremental: World) -> None:
    world = incremental
    fill_by_sql(world.billing, 200)
    world.settle_in()
    world.billing.query("update billing_usage_counters set usage_count = 7")

    assert world.run(budgets=NO_BUDGETS, is_dry=True).outcome == "compared"
    assert world.run(budgets=FEW).outcome == "blocked"
    assert world.run(budgets=FEW, approve=APPROVED).outcome == "clean"
