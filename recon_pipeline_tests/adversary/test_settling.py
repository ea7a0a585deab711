"""In flight: what is settled is what was committed long enough ago by the horizons of runs, never what began long ago.

The writer has two transactions: an event is visible before its increment. `created_at` is when its transaction began.
"""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline_tests.adversary.world import Application, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.actors import _AN_HOUR_PASSES
from recon_pipeline_tests.simulation.pipeline import Ended

HALF_AN_HOUR = 1_800
CUSTOMERS = customers(6)
LATE, LOST = CUSTOMERS[2], CUSTOMERS[4]
NEWCOMER = "newcomer"


@pytest.fixture
def world(ticking: World) -> World:
    """Counters of 12 that are right; runs have seen all of it settle."""
    ticking.fill(CUSTOMERS)
    for _ in range(3):
        assert run(ticking).outcome == "clean"
        an_hour_passes(ticking)
    return ticking


def run(world: World) -> Ended:
    return world.run(settle_seconds=HALF_AN_HOUR)


def an_hour_passes(world: World) -> None:
    world.billing.connection.execute(_AN_HOUR_PASSES.encode())


def long_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=3)


def increment(billing: Application, customer: str, quantity: int) -> None:
    """The second transaction of the writer."""
    if billing.counter(customer) is None:
        billing.add_counter(customer, quantity)
        return
    billing.query(
        "update billing_usage_counters set usage_count = usage_count + %s where gateway_customer_id = %s",
        quantity,
        customer,
    )


@pytest.mark.parametrize("customer", [LATE, NEWCOMER])
def test_an_event_of_a_transaction_that_began_long_ago_and_has_just_ended_waits_for_its_increment(
    world: World, customer: str
) -> None:
    with world.billing.session() as writer:
        writer.add_event(customer, 5, created_at=long_ago())
        for _ in range(3):
            assert run(world).outcome == "clean"
            an_hour_passes(world)
        writer.connection.commit()

    ended = [run(world) for _ in range(2)]
    increment(world.billing, customer, 5)
    ended += [run(world)]

    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 3
    assert world.repaired() == []
    assert world.wrong() == []


@pytest.mark.parametrize("customer", [LATE, NEWCOMER])
def test_an_event_whose_created_at_the_application_chose_waits_for_its_increment(world: World, customer: str) -> None:
    world.billing.add_event(customer, 5, created_at=long_ago())

    ended = [run(world) for _ in range(2)]
    increment(world.billing, customer, 5)
    ended += [run(world)]

    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 3
    assert world.repaired() == []
    assert world.wrong() == []


def test_an_event_that_is_committed_between_any_two_statements_of_a_run_waits_for_its_increment(
    incremental: World,
) -> None:
    world = incremental
    world.fill(CUSTOMERS)
    for _ in range(3):
        run(world)
        an_hour_passes(world)
    for number in range(1, 90, 4):
        with world.billing.session() as writer:
            writer.add_event(LATE, 5, created_at=long_ago())

            def commit(n: int, number: int = number, writer: Application = writer) -> None:
                if n == number:
                    writer.connection.commit()

            ended = world.run(settle_seconds=HALF_AN_HOUR, between=commit)
            writer.connection.commit()
        assert (ended.outcome, world.repaired()) == ("clean", []), f"committed before statement {number}"
        increment(world.billing, LATE, 5)
    assert world.wrong() == []


@pytest.mark.parametrize("customer", [LOST, NEWCOMER])
@pytest.mark.parametrize("age_hours", [0, 3])
def test_an_increment_that_was_lost_is_repaired_once_runs_have_seen_its_event_for_long_enough(
    world: World, customer: str, age_hours: int
) -> None:
    world.billing.add_event(customer, 5, created_at=datetime.now(UTC) - timedelta(hours=age_hours))
    before = world.billing.counter(customer)
    first = run(world)
    an_hour_passes(world)
    run(world)
    an_hour_passes(world)

    second = run(world)

    assert first.outcome == "clean"
    assert second.outcome == "clean"
    assert world.repaired() == [(customer, before, (before or 0) + 5)]
    assert world.wrong() == []


def test_a_counter_that_is_above_every_event_is_repaired_at_once(world: World) -> None:
    increment(world.billing, LOST, 100)

    ended = run(world)

    assert world.repaired() == [(LOST, 112, 12)]
    assert ended.outcome == "clean"
