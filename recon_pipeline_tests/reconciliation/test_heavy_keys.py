"""A key with so many events that they cannot be summed while its counter is locked: what is final is summed before."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from unittest.mock import patch

import pytest

from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, connected
from recon_pipeline_tests.reconciliation.conftest import incremental_template
from recon_pipeline_tests.reconciliation.product import Run, new_run
from recon_pipeline_tests.support.postgres import PostgresServer

pytestmark = pytest.mark.long

MANY = 600_000
MANY_EVENTS = f"""
    insert into billing_usage_events
        (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end)
    select 'stripe', 'whale', 'remote_commands', 'whale-' || number, 1, '2025-05-01Z', '2025-06-01Z'
    from generate_series(1, {MANY}) as number
"""


@pytest.fixture
def whale(postgres_server: PostgresServer) -> Iterator[Billing]:
    """A whale of 600,005 units whose counter says 5, in a log that is read in increments."""
    template = postgres_server.template("whale", _fill, on=incremental_template(postgres_server))
    url = postgres_server.create_database(template)
    with connected(url, autocommit=True) as connection:
        yield Billing(url, connection)


def _fill(url: str) -> None:
    with connected(url, autocommit=True) as connection:
        Billing(url, connection).record("whale", 5)
        connection.execute(MANY_EVENTS.encode())


@pytest.fixture
def drifted(whale: Billing) -> Iterator[Run]:
    """A run that has compared the whale, whose sum under lock is cut off."""
    run = new_run(whale.url)
    run.compare()
    with cut_off(whale):
        yield run


def cut_off(whale: Billing) -> AbstractContextManager[object]:
    """A limit that no sum of all events of the whale keeps; other keys have the limit that they always have."""
    ((whales,),) = whale.query("select ordinal from recon.counter_drift where gateway_customer_id = 'whale'")
    lock_and_repair = Repairer._lock_and_repair

    def limited(
        self: Repairer, tables: BillingTables, ordinals: Sequence[int], lock: str, *, create: Sequence[int]
    ) -> set[int]:
        if whales in ordinals and self.final is None:
            self.connection.exec_driver_sql("set local statement_timeout = '10ms'")
        return lock_and_repair(self, tables, ordinals, lock, create=create)

    return patch.object(Repairer, "_lock_and_repair", limited)


def meanwhile(act: Callable[[], object]) -> Callable[..., None]:
    """`_sum_final_events`, and something that happens right after it."""
    sum_final_events = Repairer._sum_final_events

    def summed(self: Repairer, *arguments: object) -> None:
        sum_final_events(self, *arguments)  # pyright: ignore[reportArgumentType]
        self.connection.exec_driver_sql("select 1")
        act()

    return summed


def test_a_heavy_key_is_repaired_with_few_of_its_events_summed_under_the_lock(whale: Billing, drifted: Run) -> None:
    assert drifted.repair().repaired == 1
    assert whale.counter("whale") == 600_005
    assert whale.ledger() == [("whale", "under", 5, 600_005)]


def test_an_increment_between_the_two_sums_of_a_heavy_key_is_kept(whale: Billing, drifted: Run) -> None:
    with patch.object(Repairer, "_sum_final_events", meanwhile(lambda: whale.record("whale", 7))):
        assert drifted.repair().repaired == 1
    assert whale.counter("whale") == 600_012


@pytest.mark.parametrize(
    "change",
    [
        "delete from billing_usage_events where request_id = 'whale-1'",
        "update billing_usage_events set quantity = 2 where request_id = 'whale-1'",
    ],
)
def test_events_that_change_between_the_two_sums_of_a_heavy_key_defer_it(
    whale: Billing, drifted: Run, change: str
) -> None:
    with patch.object(Repairer, "_sum_final_events", meanwhile(lambda: whale.query(change))):
        assert drifted.repair().deferred == 1
    assert (whale.counter("whale"), whale.ledger()) == (5, [])


def test_a_heavy_key_that_turns_out_to_be_written_in_two_ways_stops_itself_alone(whale: Billing) -> None:
    whale.add_event("zebra", 3)
    run = new_run(whale.url)
    run.compare()
    whale.add_event("whale", 5, period=(MAY[0], MAY[1] - timedelta(microseconds=1)))

    with cut_off(whale):
        outcome = run.repair()

    assert (outcome.repaired, outcome.doubtful) == (1, 1)
    drift = whale.query("select outcome, error from recon.counter_drift where gateway_customer_id = 'whale'")
    assert drift == [("doubtful", "one period written in two ways")]
    assert (whale.counter("whale"), whale.counter("zebra")) == (5, 3)
