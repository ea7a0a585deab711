"""A key with very many events on a partitioned log: no right counter is lowered by a sum from before its lock."""

from collections.abc import Callable
from unittest.mock import patch

from recon_pipeline.store.counters import chunks
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline_tests.adversary.world import TICK, World
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.reconciliation.test_heavy_keys import MANY, MANY_EVENTS, meanwhile
from recon_pipeline_tests.reconciliation.test_table_shapes import INDEXED, PARTITIONED

FIRST_PARTITIONS = PARTITIONED.replace("(maxvalue)", "('2025-05-25 00:00Z')") + INDEXED
LATER = "create table later partition of billing_usage_events for values from ('2025-05-25 00:00Z') to (maxvalue)"
EVERYTHING = "(select sum(quantity) from billing_usage_events)"


def test_events_corrected_in_a_partition_without_triggers_lower_no_counter(worlds: Callable[[str], World]) -> None:
    world = worlds(TICK)
    billing = world.billing
    billing.connection.execute(
        (FIRST_PARTITIONS + "create index on billing_usage_events (gateway_customer_id);").encode()
    )
    install_increments(billing.url)
    billing.connection.execute(LATER.encode())  # which has no triggers of its own
    billing.query(MANY_EVENTS)
    billing.add_counter("whale", MANY)
    world.settle_in()
    billing.set_counter("whale", 5)

    def correct() -> None:
        """An event by the name of its partition, and the counter, in one transaction: after it the two match."""
        with billing.session() as session:
            session.query("update later set quantity = 101 where request_id = 'whale-1'")
            session.query(f"update billing_usage_counters set usage_count = {EVERYTHING}")
            session.connection.commit()

    with (
        patch.object(chunks, "CHUNK_STATEMENT_TIMEOUT_MS", 60),
        patch.object(Repairer, "_sum_final_events", meanwhile(correct)),
    ):
        world.run()

    assert world.repaired() == []
    assert billing.counter("whale") == billing.value(f"select {EVERYTHING}")
