"""Right counters stay, though events carry no `ingest_xid` or one that is not their own.

An ORM that maps the column, `insert ... select *`, COPY and postgres_fdw all write it. Increments read by that column
miss such events, or see them where they do not belong: what they say is a reason to look, never a value to write.
"""

from collections.abc import Callable

import pytest

from recon_pipeline_tests.adversary.world import AUDIT, TICK, Application, World
from recon_pipeline_tests.reconciliation.billing import GATEWAY, MAY, USAGE, customers
from recon_pipeline_tests.simulation.pipeline import Ended

RIGHT, LOST = customers(20, prefix="right"), customers(5, prefix="lost")
COLUMNS = (
    "id, gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, "
    "event_timestamp, ingest_xid"
)
CURRENT_XID = "select pg_current_xact_id()::text"
OLD, FUTURE = "3", str(2**62)


def explicit(billing: Application, customer: str, quantity: int, ingest_xid: str | None) -> None:
    billing.add_event(customer, quantity, ingest_xid=ingest_xid)


def mapped_as_null(billing: Application, customer: str, quantity: int) -> None:
    explicit(billing, customer, quantity, None)


def of_an_old_transaction(billing: Application, customer: str, quantity: int) -> None:
    explicit(billing, customer, quantity, OLD)


def of_the_latest_event(billing: Application, customer: str, quantity: int) -> None:
    explicit(billing, customer, quantity, billing.value("select max(ingest_xid)::text from billing_usage_events"))


def of_the_next_transactions(billing: Application, customer: str, quantity: int) -> None:
    explicit(billing, customer, quantity, str(int(billing.value(CURRENT_XID)) + 50))


def of_the_far_future(billing: Application, customer: str, quantity: int) -> None:
    explicit(billing, customer, quantity, FUTURE)


def copied_without_the_column_filled(billing: Application, customer: str, quantity: int) -> None:
    copied(billing, customer, quantity, r"\N")


def copied_with_an_old_id(billing: Application, customer: str, quantity: int) -> None:
    copied(billing, customer, quantity, OLD)


def copied(billing: Application, customer: str, quantity: int, ingest_xid: str) -> None:
    request_id = billing.value("select gen_random_uuid()::text")
    row = (request_id, GATEWAY, customer, USAGE, request_id, str(quantity), *map(str, MAY), str(MAY[0]), ingest_xid)
    with billing.connection.cursor().copy(f"copy billing_usage_events ({COLUMNS}) from stdin".encode()) as copy:
        copy.write("\t".join(row) + "\n")


def selected_from_another_table(billing: Application, customer: str, quantity: int) -> None:
    """Events that were kept elsewhere, with all their columns."""
    billing.add_event(customer, quantity, request_id="to be moved")
    billing.query("create table moved as select * from billing_usage_events where request_id = 'to be moved'")
    billing.query("delete from billing_usage_events where request_id = 'to be moved'")
    billing.query("insert into billing_usage_events select * from moved")
    billing.query("drop table moved")
    billing.query("update billing_usage_events set request_id = id::text where request_id = 'to be moved'")


WAYS = [
    mapped_as_null,
    of_an_old_transaction,
    of_the_latest_event,
    of_the_next_transactions,
    of_the_far_future,
    copied_without_the_column_filled,
    copied_with_an_old_id,
    selected_from_another_table,
]
Way = Callable[[Application, str, int], None]
BY_ANY_WAY = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@pytest.fixture(params=[TICK, AUDIT])
def world(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """A log with the column; customers whose counters are right, verified twice."""
    world = worlds(request.param)
    world.begin_settled([*RIGHT, *LOST])
    return world


def count(world: World, customer: str, quantity: int) -> None:
    """What the application adds to a counter beside the event."""
    world.billing.query(
        "update billing_usage_counters set usage_count = usage_count + %s where gateway_customer_id = %s",
        quantity,
        customer,
    )


def assert_nothing_was_wrong(world: World, ended: Ended) -> None:
    assert world.repaired() == []
    assert world.wrong() == []
    assert (ended.outcome, ended.mismatch_count) == ("clean", 0)
    assert "counters_match_event_sums" not in ended.failed_checks


@BY_ANY_WAY
def test_a_counter_that_counts_such_events_is_right_and_stays(world: World, way: Way) -> None:
    for customer in RIGHT:
        way(world.billing, customer, 5)
        count(world, customer, 5)

    for _ in range(3):
        assert_nothing_was_wrong(world, world.run())


@BY_ANY_WAY
def test_such_events_between_every_two_statements_of_a_run_lower_nothing(world: World, way: Way) -> None:
    def record(n: int) -> None:
        if n % 7 == 0:
            customer = RIGHT[n // 7 % len(RIGHT)]
            with world.billing.session() as session:
                way(session, customer, 5)
                session.query(
                    "update billing_usage_counters set usage_count = usage_count + 5 where gateway_customer_id = %s",
                    customer,
                )
                session.connection.commit()

    for _ in range(2):
        assert_nothing_was_wrong(world, world.run(between=record))


@BY_ANY_WAY
def test_a_counter_that_is_really_wrong_is_set_to_what_the_log_adds_up_to(world: World, way: Way) -> None:
    """Such events are in the sums of keys that have drifted for another reason, and of keys beside them."""
    for customer in (*RIGHT, *LOST):
        way(world.billing, customer, 5)
        count(world, customer, 5)
    for customer in LOST:
        world.billing.record(customer, 3)
        count(world, customer, -3)

    ended = world.run()

    assert world.wrong() == []
    assert sorted(world.repaired()) == [(customer, 17, 20) for customer in LOST]
    assert (ended.outcome, ended.mismatch_count) == ("clean", 0)
    assert_nothing_more(world, len(LOST))


@BY_ANY_WAY
def test_the_lost_increment_of_such_an_event_is_repaired_by_an_audit_and_never_taken_back(
    world: World, way: Way, worlds: Callable[[str], World]
) -> None:
    for customer in LOST:
        way(world.billing, customer, 5)

    audited = World(world.billing, AUDIT).run()

    assert (audited.outcome, audited.mismatch_count) == ("clean", 0)
    assert world.wrong() == []
    assert sorted(world.repaired()) == [(customer, 12, 17) for customer in LOST]
    assert_nothing_more(world, len(LOST))


def assert_nothing_more(world: World, repairs: int) -> None:
    for mode in (TICK, TICK, AUDIT):
        ended = World(world.billing, mode).run()
        assert (ended.outcome, ended.mismatch_count) == ("clean", 0), ended
    assert len(world.repaired()) == repairs
    assert world.wrong() == []


@BY_ANY_WAY
def test_a_tick_after_a_tick_never_lowers_a_counter_that_an_audit_has_raised(world: World, way: Way) -> None:
    for customer in LOST:
        way(world.billing, customer, 5)
    World(world.billing, AUDIT).run()

    for _ in range(3):
        World(world.billing, TICK).run()
        for customer in RIGHT[:3]:
            world.billing.record(customer, 1)

    assert all(after > before for _, before, after in world.repaired())
    assert world.wrong() == []
