"""No wait is without a bound: one deadline for all locks that a run waits for."""

import time

import pytest

from recon_pipeline_tests.adversary.world import World
from recon_pipeline_tests.reconciliation.billing import customers

LONGEST_RUN_SECONDS = 50.0  # 0.36 s for each of these keys were 72 s
BUSY, FREE = customers(200, prefix="busy"), customers(50, prefix="free")
INSERT = """
    insert into billing_usage_counters
        (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
    select 'stripe', customer, 'remote_commands', '2025-05-01 00:00Z', '2025-06-01 00:00Z', 12
    from unnest(%s::text[]) as customer
"""


@pytest.fixture
def uncounted(world: World) -> World:
    """Two hundred and fifty customers who have used 12 and have no counter."""
    world.begin_settled(customers(20))
    for customer in (*BUSY, *FREE):
        world.billing.add_event(customer, 12)
    return world


@pytest.fixture
def world(ticking: World) -> World:
    """An audit reads the log as a run does that knows nothing else."""
    return ticking


@pytest.mark.timeout(150)
def test_an_open_transaction_that_inserts_the_counters_of_many_keys_costs_a_run_seconds_in_all(
    uncounted: World,
) -> None:
    world = uncounted
    with world.billing.session() as application:
        application.query(INSERT, [*BUSY])
        began = time.monotonic()
        ended = world.run()
        seconds = time.monotonic() - began
        free = {customer for customer, before, after in world.repaired() if (before, after) == (None, 12)}
        application.connection.commit()

    assert free == set(FREE)
    assert len(world.repaired()) == len(FREE)
    assert (ended.outcome, ended.mismatch_count) == ("not_clean", len(BUSY))
    assert world.billing.query(
        "select deferred_count, reconcile_failures from recon.reconciliation_run where run_id = %s", ended.run_id
    ) == [(len(BUSY), 0)]
    assert seconds < LONGEST_RUN_SECONDS
    assert world.run().outcome == "clean"
    assert world.wrong() == []
    assert len(world.repaired()) == len(FREE)


@pytest.mark.timeout(150)
def test_an_open_transaction_that_has_locked_many_wrong_counters_costs_a_run_seconds_in_all(world: World) -> None:
    world.begin_settled([*BUSY, *FREE])
    world.billing.query("update billing_usage_counters set usage_count = 5")
    with world.billing.session() as application:
        application.query(
            "update billing_usage_counters set updated_at = updated_at where gateway_customer_id = any(%s)", [*BUSY]
        )
        began = time.monotonic()
        ended = world.run()
        seconds = time.monotonic() - began
        application.connection.commit()

    assert sorted(row[0] for row in world.repaired()) == sorted(FREE)
    assert ended.mismatch_count == len(BUSY)
    assert seconds < LONGEST_RUN_SECONDS
    assert world.run().outcome == "clean"
    assert world.wrong() == []
