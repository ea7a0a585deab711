"""A key with so many events that they cannot be summed while its counter is locked: what is final is summed before."""

from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest

from recon_pipeline.store.counters import repairer
from recon_pipeline.store.counters.repairer import Repairer
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import Run, new_run

_MANY_EVENTS = """
    insert into billing_usage_events
        (gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end)
    select 'stripe', 'whale', 'remote_commands', 'whale-' || number, 1, '2025-05-01Z', '2025-06-01Z'
    from generate_series(1, 300000) as number
"""


@pytest.fixture
def drifted(incremental_billing: Billing) -> Iterator[Run]:
    """A whale of 300,005 units whose counter says 5, and a limit that its sum under lock does not keep."""
    incremental_billing.record("whale", 5)
    incremental_billing.query(_MANY_EVENTS)
    run = new_run(incremental_billing.url)
    run.compare()
    with patch.object(repairer, "CHUNK_STATEMENT_TIMEOUT_MS", 20):
        yield run


def _meanwhile(act: Callable[[], object]) -> Callable[..., None]:
    """`_sum_final_events`, and something that happens right after it."""
    sum_final_events = Repairer._sum_final_events

    def summed(self: Repairer, *arguments: object) -> None:
        sum_final_events(self, *arguments)  # pyright: ignore[reportArgumentType]
        self.connection.exec_driver_sql("select 1")
        act()

    return summed


def test_a_heavy_key_is_repaired_with_few_of_its_events_summed_under_the_lock(
    incremental_billing: Billing, drifted: Run
) -> None:
    assert drifted.repair().repaired == 1
    assert incremental_billing.counter("whale") == 300_005
    assert incremental_billing.ledger() == [("whale", "under", 5, 300_005)]


def test_an_increment_between_the_two_sums_of_a_heavy_key_is_kept(incremental_billing: Billing, drifted: Run) -> None:
    with patch.object(Repairer, "_sum_final_events", _meanwhile(lambda: incremental_billing.record("whale", 7))):
        assert drifted.repair().repaired == 1
    assert incremental_billing.counter("whale") == 300_012


@pytest.mark.parametrize(
    "change",
    [
        "delete from billing_usage_events where request_id = 'whale-1'",
        "update billing_usage_events set quantity = 2 where request_id = 'whale-1'",
    ],
)
def test_events_that_change_between_the_two_sums_of_a_heavy_key_defer_it(
    incremental_billing: Billing, drifted: Run, change: str
) -> None:
    with patch.object(Repairer, "_sum_final_events", _meanwhile(lambda: incremental_billing.query(change))):
        assert drifted.repair().deferred == 1
    assert (incremental_billing.counter("whale"), incremental_billing.ledger()) == (5, [])
