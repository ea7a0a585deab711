"""One poison row stops one key, and one that stays open costs the others nothing.

What a run reads is asked of the server: rows of the log that its scans returned, by the statistics of the table.
"""

import itertools

import pytest

from recon_pipeline_tests.adversary.world import APPROVED, COUNT_NOW, NONE_LEFT, World, fill_by_sql
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.product import kept_database
from recon_pipeline_tests.reconciliation.traffic import wait_until
from recon_pipeline_tests.simulation.pipeline import Ended

KEYS, EVENTS = 1_500, 4
BUSY = customers(400, prefix="busy")
REFUSE = """
    create function refuse() returns trigger language plpgsql as $$
    begin
        if new.gateway_customer_id = 'stuck' and new.usage_count = 12 then raise exception 'not this one'; end if;
        return new;
    end $$;
    create trigger refuse before update on billing_usage_counters for each row execute function refuse();
"""
ROWS_READ = """
    select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint
    from pg_stat_user_tables where relname = 'billing_usage_events'
"""
SESSIONS = """
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'recon_pipeline'
"""


def rows_read_by_a_tick(world: World) -> int:
    before = rows_read(world)
    world.run(approve=APPROVED)
    return rows_read(world) - before


def rows_read(world: World) -> int:
    """Once no session of ours is left, which tells its figures when it ends."""
    kept_database(world.billing.url).close()
    wait_until(lambda: world.billing.value(SESSIONS) == 0)
    world.billing.query(COUNT_NOW)
    return world.billing.value(ROWS_READ)


@pytest.mark.parametrize("why", ["refused", "refused since the first run"])
def test_a_key_that_cannot_be_repaired_makes_no_later_tick_read_more(incremental: World, why: str) -> None:
    world = incremental
    fill_by_sql(world.billing, KEYS, events=EVENTS)
    world.fill(["stuck"])
    if why == "refused":
        world.settle_in()
    world.billing.set_counter("stuck", 5)
    world.billing.connection.execute(REFUSE.encode())
    turns = itertools.cycle(BUSY)

    def traffic() -> None:
        for customer in itertools.islice(turns, 200):
            world.billing.record(customer, 1)

    read: list[int] = []
    ended = Ended("")
    for _ in range(6):
        traffic()
        ended = world.run(approve=APPROVED)
        read.append(rows_read_by_a_tick(world))

    assert (ended.outcome, ended.mismatch_count) == ("not_clean", 1)
    assert read[-1] <= read[2] + 200, f"each tick reads more than the one before: {read}"
    assert read[-1] < KEYS, f"a tick with nothing new reads {read[-1]} rows"
    assert world.repaired() == []


def test_an_open_key_of_a_server_that_was_ahead_is_closed_once_its_counter_matches(incremental: World) -> None:
    """Otherwise what left the log before a dump keeps a counter from being lowered for ever after the restore."""
    world = incremental
    world.begin_settled(["restored", "right"])
    world.billing.query(
        """
        insert into recon.open_key (
            gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason, noted_xid, units_left
        )
        select gateway_name, usage_type, gateway_customer_id, period_start, period_end, 'doubtful', '1000000000', 12
        from billing_usage_counters where gateway_customer_id = 'restored'
        """
    )

    assert world.run().outcome == "clean"
    assert world.billing.query("select * from recon.open_key") == []

    world.billing.set_counter("restored", 17)
    assert world.run(budgets=NONE_LEFT).outcome == "clean"
    assert world.repaired() == [("restored", 17, 12)]
