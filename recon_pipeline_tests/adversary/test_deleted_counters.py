"""No evidence but rows: a counter that is gone is found by the next tick, whatever the server's statistics say.

Statistics lag behind, and a crash of the server discards them. Every counter here was verified before it went.
"""

import os
import signal

import psycopg
import pytest

from recon_pipeline_tests.adversary.world import TICK, Application, World
from recon_pipeline_tests.reconciliation.billing import JUNE, connected, customers
from recon_pipeline_tests.reconciliation.conftest import PrivateServer
from recon_pipeline_tests.reconciliation.traffic import wait_until
from recon_pipeline_tests.simulation.pipeline import Ended

CUSTOMERS = customers(30)
GONE = CUSTOMERS[7]


@pytest.fixture
def world(ticking: World) -> World:
    """Thirty counters of 12 that were verified three times."""
    ticking.begin_settled(CUSTOMERS, runs=3)
    return ticking


def assert_made_anew(world: World, ended: Ended) -> None:
    assert world.wrong() == []
    assert (GONE, None, 12) in world.repaired()
    assert (ended.outcome, ended.mismatch_count) == ("clean", 0)


def test_a_deleted_counter_is_made_anew_by_the_next_tick(world: World) -> None:
    world.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)

    assert_made_anew(world, world.run())
    assert len(world.repaired()) == 1


def test_a_counter_that_was_deleted_a_moment_ago_by_a_session_that_is_still_open_is_made_anew(world: World) -> None:
    """Its session has not yet reported to the server's statistics, and will not while it is busy."""
    with world.billing.session() as session:
        session.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)
        session.connection.commit()
        session.query("select 1")
        ended = world.run()

    assert_made_anew(world, ended)


def test_a_counter_that_is_deleted_while_the_statistics_are_reset_is_made_anew(world: World) -> None:
    world.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)
    world.billing.query("select pg_stat_reset()")

    assert_made_anew(world, world.run())


def test_a_counter_that_is_deleted_while_another_one_is_inserted_is_made_anew(world: World) -> None:
    """As many rows as before, so that counting them says nothing."""
    with world.billing.session() as session:
        session.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)
        session.add_counter("nobody", 4)
        session.connection.commit()

    ended = world.run()

    assert_made_anew(world, ended)
    assert ("nobody", 4, 0) in world.repaired()


@pytest.mark.parametrize("by", ["customer", "period"])
def test_a_counter_that_is_moved_to_another_key_is_made_anew(world: World, by: str) -> None:
    # With another count, since as much usage under another customer may be that of a customer who was renamed.
    change, values = ("gateway_customer_id = %s, usage_count = 13", ["nobody"]) if by == "customer" else (
        "period_start = %s, period_end = %s", [*JUNE]
    )  # fmt: skip
    world.billing.query(f"update billing_usage_counters set {change} where gateway_customer_id = %s", *values, GONE)

    ended = world.run()

    assert_made_anew(world, ended)
    assert sorted(after for _, before, after in world.repaired() if before) == [0]


def test_a_counter_that_is_deleted_by_a_cascade_from_a_customer_that_comes_back_is_made_anew(world: World) -> None:
    """Deleted and inserted again at 0, as an import does."""
    with world.billing.session() as session:
        session.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)
        session.add_counter(GONE, 0)
        session.connection.commit()

    ended = world.run()

    assert world.wrong() == []
    assert world.repaired() == [(GONE, 0, 12)]
    assert ended.outcome == "clean"


def test_all_counters_that_are_truncated_are_made_anew(world: World) -> None:
    world.billing.query("truncate billing_usage_counters")

    ended = world.run()

    assert_made_anew(world, ended)
    assert len(world.repaired()) == len(CUSTOMERS)


@pytest.mark.parametrize("moment", range(1, 100, 6))
def test_a_counter_that_is_deleted_between_two_statements_of_a_tick_is_made_anew_by_the_next(
    incremental: World, moment: int
) -> None:
    incremental.begin_settled(CUSTOMERS)
    delete = "delete from billing_usage_counters where gateway_customer_id = %s"
    incremental.run(between=lambda n: incremental.billing.query(delete, GONE) if n == moment else None)

    ended = incremental.run()

    assert incremental.wrong() == []
    assert {row[1:] for row in incremental.repaired()} <= {(None, 12)}
    assert ended.outcome == "clean"


@pytest.mark.parametrize("crash", ["the server", "one of its backends"])
def test_a_counter_that_was_deleted_before_a_crash_is_made_anew(private_server: PrivateServer, crash: str) -> None:
    """A backend that dies takes all statistics with it, while the server counts as running since it was started."""
    with private_server.billing() as billing:
        world = World(Application(billing.url, billing.connection), TICK)
        world.fill(CUSTOMERS)
        world.settle_in(runs=3)
        world.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", GONE)
        if crash == "the server":
            private_server.crash()
            private_server.start()
        else:
            os.kill(world.billing.value("select pg_backend_pid()"), signal.SIGKILL)
            wait_until(lambda: is_back(billing.url))

    with private_server.reopened(billing) as again:
        world = World(Application(again.url, again.connection), TICK)
        assert_made_anew(world, world.run())


def is_back(url: str) -> bool:
    try:
        with connected(url) as connection:
            return connection.execute("select true").fetchone() == (True,)
    except psycopg.OperationalError:
        return False
