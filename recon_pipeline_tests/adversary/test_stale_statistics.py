"""A run with very many drifted keys takes time in proportion to them, although statistics know only small runs."""

import time

import pytest

from recon_pipeline_tests.adversary.test_mass_changes import FLOOR_SECONDS, GROWTH
from recon_pipeline_tests.adversary.world import APPROVED, NONE_LEFT, World, fill_by_sql

pytestmark = pytest.mark.long

FEW, MANY = 200, 1_600
"""Customers whose counters drift in each way."""

DRIFT = {
    "lowered": "update billing_usage_counters set usage_count = usage_count + 1 where {of_keys}",
    "raised": "update billing_usage_counters set usage_count = usage_count - 1 where {of_keys}",
    "renamed": "update billing_usage_counters set gateway_customer_id = gateway_customer_id || '_' where {of_keys}",
    "left": "delete from billing_usage_events where {of_keys}",
    "twice": "update billing_usage_counters set period_start = period_start + interval '1 ms' where {of_keys}",
}


@pytest.mark.timeout(240)
def test_statistics_of_small_runs_make_no_large_run_slow(incremental: World) -> None:
    world = incremental
    repair_few(world)
    took: dict[int, float] = {}
    for keys in (FEW, MANY):
        for kind in DRIFT:
            fill_by_sql(world.billing, keys, events=2, prefix=f"{kind}_{keys}_")
        for _ in range(2):
            world.run(approve=APPROVED)
        for kind, drift in DRIFT.items():
            world.billing.query(drift.format(of_keys=f"gateway_customer_id like '{kind}_{keys}_%'"))
        began = time.monotonic()
        found = world.run(budgets=NONE_LEFT)
        approved = world.run(budgets=NONE_LEFT, approve=APPROVED)
        took[keys] = time.monotonic() - began
        assert (found.outcome, approved.outcome) == ("not_clean", "not_clean"), "a period stays written in two ways"
        assert "events_stay_in_the_log" in set(found.failed_checks) - set(approved.failed_checks)
    assert took[MANY] <= GROWTH * max(took[FEW], FLOOR_SECONDS), took


def repair_few(world: World) -> None:
    """Four runs that each repair a hundred keys; the server looks at the tables then, and at the run's not again."""
    fill_by_sql(world.billing, 100, prefix="few_")
    world.settle_in()
    for _ in range(4):
        world.billing.query("update billing_usage_counters set usage_count = usage_count + 1")
        assert world.run(approve=APPROVED).outcome == "clean"
    for table in ("counter_drift", "counter_repair", "open_key"):
        world.billing.query(f"alter table recon.{table} set (autovacuum_enabled = off)")
