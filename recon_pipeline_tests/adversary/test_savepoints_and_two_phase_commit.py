"""No false alarm, no right counter changed: writers that use savepoints, and transactions that were prepared.

A savepoint writes rows by a transaction id of its own. A prepared transaction keeps its locks and hides its rows, for
hours and without a session.
"""

import pytest

from recon_pipeline_tests.adversary.test_settling import an_hour_passes, increment, run
from recon_pipeline_tests.adversary.world import APPROVED, TICK, Application, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.conftest import PrivateServer, install_increments

CUSTOMERS = customers(6)


def test_usage_of_savepoints_of_which_some_are_rolled_back_is_never_an_alarm(world: World) -> None:
    world.begin_settled(CUSTOMERS)
    ended = []
    with world.billing.session() as writer:
        for number in range(30):
            writer.query(f"savepoint number_{number}")
            writer.record(CUSTOMERS[number % len(CUSTOMERS)])
            if number % 3 == 0:
                writer.query(f"rollback to savepoint number_{number}")
            if number % 15 == 0:
                ended.append(world.run())
        writer.connection.commit()
    ended += [world.run(), world.run()]

    assert {(one.outcome, one.mismatch_count) for one in ended} == {("clean", 0)}
    assert world.wrong() == []
    assert world.repaired() == []


def test_an_event_of_a_savepoint_waits_for_its_increment_however_long_its_transaction_was_open(ticking: World) -> None:
    ticking.fill(CUSTOMERS)
    for _ in range(3):
        run(ticking)
        an_hour_passes(ticking)
    with ticking.billing.session() as writer:
        writer.query("savepoint one")
        writer.add_event(CUSTOMERS[0], 5)
        writer.query("savepoint two")
        writer.add_event(CUSTOMERS[1], 5)
        for _ in range(2):
            run(ticking)
            an_hour_passes(ticking)
        writer.connection.commit()

    ended = [run(ticking)]
    for customer in CUSTOMERS[:2]:
        increment(ticking.billing, customer, 5)
    ended.append(run(ticking))

    assert {(one.outcome, one.mismatch_count) for one in ended} == {("clean", 0)}
    assert ticking.wrong() == []
    assert ticking.repaired() == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_a_prepared_transaction_has_locked_is_deferred_and_all_else_is_repaired(
    private_server: PrivateServer, end: str
) -> None:
    with private_server.billing() as billing:
        billing.query("alter system set max_prepared_transactions = 8")
    private_server.stop()
    private_server.start()
    with private_server.billing() as billing:
        install_increments(billing.url)
        world = World(Application(billing.url, billing.connection), TICK)
        world.fill(CUSTOMERS)
        for _ in range(2):
            world.run(approve=APPROVED)
        with world.billing.session() as late:
            late.record(CUSTOMERS[0], 5)
            late.record("newcomer", 3)
            late.query("prepare transaction 'of the application'")
        world.billing.add_event("newcomer", 2)
        world.billing.set_counter(CUSTOMERS[3], 5)

        meanwhile = [world.run(), world.run()]
        world.billing.query(f"{end} prepared 'of the application'")
        afterwards = [world.run(), world.run()]

        assert [(one.outcome, one.mismatch_count) for one in meanwhile] == [("not_clean", 1)] * 2
        assert [(one.outcome, one.mismatch_count) for one in afterwards] == [("clean", 0)] * 2
        new = ("newcomer", 3, 5) if end == "commit" else ("newcomer", None, 2)
        assert world.repaired() == [(CUSTOMERS[3], 5, 12), new]
        assert world.wrong() == []
