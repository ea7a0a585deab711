"""What has gone wrong for others who keep usage counters, acted out here: each time every counter is right at the end.

The kinds of incidents come from public trackers of metering systems, counter caches, rollups and poolers; rows and
sequences are our own.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from zoneinfo import ZoneInfo

import psycopg
import pytest

from recon_pipeline_tests.adversary.world import (
    BARE_LOG,
    TICK,
    World,
    at,
    impatient,
    statement_count,
)
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Period, customers
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.reconciliation.test_table_shapes import PARTITIONED
from recon_pipeline_tests.reconciliation.traffic import background
from recon_pipeline_tests.simulation.pipeline import Ended

CUSTOMERS = customers(12)
LONGEST_WAIT_SECONDS = 5.0
COUNTED_BY_TRIGGER = """
    create function count_usage() returns trigger language plpgsql as $count$
    begin
        insert into billing_usage_counters as counter
            (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
        select new.gateway_name, new.gateway_customer_id, new.usage_type, new.period_start, new.period_end, new.quantity
        on conflict (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
        do update set usage_count = counter.usage_count + excluded.usage_count;
        return new;
    end
    $count$;
    create trigger count_usage before insert on billing_usage_events for each row execute function count_usage();
"""
UPSERT = """
    insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, quantity,
        period_start, period_end, event_timestamp)
    values ('stripe', %s, 'remote_commands', %s, %s, %s, %s, %s)
    on conflict (gateway_name, request_id) do update set quantity = excluded.quantity
"""
RECOUNT = """
    delete from billing_usage_counters;
    insert into billing_usage_counters
        (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, sum(quantity)
    from billing_usage_events group by 1, 2, 3, 4, 5;
"""
SWAP = """
    lock table billing_usage_events in access exclusive mode;
    create table events_copied (like billing_usage_events including all);
    insert into events_copied select * from billing_usage_events;
    alter table billing_usage_events rename to events_old;
    alter table events_copied rename to billing_usage_events;
"""
MERGE = """
    update billing_usage_events set gateway_customer_id = '{kept}' where gateway_customer_id = '{merged}';
    with gone as (
        delete from billing_usage_counters where gateway_customer_id = '{merged}' returning *
    )
    insert into billing_usage_counters as counter
        (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
    select gateway_name, '{kept}', usage_type, period_start, period_end, usage_count from gone
    on conflict (gateway_name, gateway_customer_id, usage_type, period_start, period_end)
    do update set usage_count = counter.usage_count + excluded.usage_count
"""


def assert_clean(world: World, ended: Ended) -> None:
    """Nothing was found, nothing was changed."""
    assert (ended.outcome, ended.mismatch_count) == ("clean", 0), ended
    assert world.wrong() == []


def assert_fixes(world: World) -> None:
    """The next run makes everything right, and the one after that finds nothing to do."""
    ended = world.run()
    assert_clean(world, ended)
    repaired = len(world.repaired())
    assert_clean(world, world.run())
    assert len(world.repaired()) == repaired


@pytest.fixture
def world(ticking: World) -> World:
    """An audit reads the log as a run does that knows nothing else."""
    return ticking


def first_moment(world: World) -> int:
    """The first statement that something happens before: another one in each mode, so that they share the rest."""
    return {TICK: 2, BARE_LOG: 5}[world.mode]


def test_counters_that_a_trigger_counts_again_at_each_retried_upsert_go_back_to_the_log(world: World) -> None:
    """A row trigger before an insert fires also for a row that then becomes an update."""
    world.billing.query(COUNTED_BY_TRIGGER)
    for customer in CUSTOMERS:
        world.billing.query(UPSERT, customer, f"{customer} first", 5, *MAY, MAY[0])
    world.settle_in()
    assert world.repaired() == []

    for customer in CUSTOMERS[:4]:  # the same request once more
        world.billing.query(UPSERT, customer, f"{customer} first", 5, *MAY, MAY[0])
    for customer in CUSTOMERS[4:6]:  # once more, with another quantity
        world.billing.query(UPSERT, customer, f"{customer} first", 7, *MAY, MAY[0])
    assert_fixes(world)

    assert world.billing.counters() == {
        customer: 7 if number in (4, 5) else 5 for number, customer in enumerate(CUSTOMERS)
    }
    assert {customer for customer, _, _ in world.repaired()} == set(CUSTOMERS[:6])


def test_events_corrected_just_before_two_runs_at_once_are_in_no_later_run_again(world: World) -> None:
    """What one of two overlapping refreshes takes up must not be lost to both."""
    world.begin_settled(CUSTOMERS)
    for n in range(3):
        world.billing.query(
            "update billing_usage_events set quantity = quantity + 1 where gateway_customer_id < %s", CUSTOMERS[6]
        )
        with background() as start:
            both = [start(world.run) for _ in range(2)]
        ended = [one.result() for one in both]
        assert {one.outcome for one in ended} <= {"clean", "not_clean"}, ended
        assert world.wrong() == [], f"round {n}: {ended}"
        assert_clean(world, world.run())


def test_an_event_of_a_savepoint_that_is_committed_after_two_later_ones_were_read_is_counted(ticking: World) -> None:
    """Numbers are handed out before commits: what is read up to the highest one misses the slow writer."""
    ticking.begin_settled(CUSTOMERS)
    with ticking.billing.session() as slow:
        slow.query("savepoint one")
        slow.add_event(CUSTOMERS[0], 3)  # its increment is lost
        slow.query("release savepoint one")
        slow.query("savepoint two")
        slow.add_event(CUSTOMERS[1], 4)
        slow.query("rollback to savepoint two")
        for _ in range(2):
            ticking.billing.record(CUSTOMERS[2], 1)
            assert_clean(ticking, ticking.run())
        slow.connection.commit()

    assert_fixes(ticking)

    assert ticking.billing.counter(CUSTOMERS[0]) == 15
    assert ticking.billing.counter(CUSTOMERS[1]) == 12


@pytest.mark.timeout(120)
def test_batches_that_take_counters_in_the_opposite_order_are_never_cancelled(world: World) -> None:
    """The application's long transactions lock counters backwards while runs repair them forwards."""
    world.begin_settled(CUSTOMERS)
    stop = threading.Event()
    longest = [0.0]

    def write() -> None:
        with world.billing.session() as batch:
            while not stop.is_set():
                began = datetime.now(UTC)
                for customer in reversed(CUSTOMERS):
                    batch.record(customer, 1)
                batch.connection.commit()
                longest[0] = max(longest[0], (datetime.now(UTC) - began).total_seconds())

    with background() as start:
        start(write)
        try:
            for number in range(6):
                with world.billing.session(autocommit=True) as saboteur:
                    saboteur.query("set lock_timeout = '2s'")
                    saboteur.set_counter(CUSTOMERS[number], 0)
                ended = world.run()
                assert ended.outcome in ("clean", "not_clean"), ended
        finally:
            stop.set()

    assert longest[0] < LONGEST_WAIT_SECONDS
    assert_fixes(world)


def test_a_recount_of_all_counters_between_any_two_statements_raises_no_alarm(world: World) -> None:
    """Somebody's own nightly job deletes all counters and makes them anew from the log."""
    world.begin_settled(CUSTOMERS)

    for number in range(first_moment(world), statement_count(world) + 1, 6):
        ended = world.run(between=at(number, lambda: impatient(world.billing, RECOUNT)))
        assert ended.outcome == "clean", f"before statement {number}: {ended}"

    assert world.repaired() == []
    assert_fixes(world)


OPEN_ENDED = ["infinity", "9999-12-31 23:59:59.999999+00", "9999-12-31 23:59:59-08", "294276-12-31 23:59:59+00"]


@pytest.mark.parametrize("end", OPEN_ENDED)
@pytest.mark.parametrize("time_zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_a_period_without_an_end_is_reconciled_like_any_other(world: World, end: str, time_zone: str) -> None:
    """Free customers have a period that never ends, in a database that shows instants in its own time zone."""
    name = world.billing.value("select current_database()")
    world.billing.query(f"alter database \"{name}\" set timezone = '{time_zone}'")
    world.fill(CUSTOMERS)
    with world.billing.session(autocommit=True) as application:
        for customer in CUSTOMERS[:6]:
            application.query(
                "select record_billing_usage_event('stripe', %s, 'remote_commands', %s, '2025-04-10 00:00Z', %s, 5)",
                customer, f"{customer} open", end,
            )  # fmt: skip
    world.settle_in()
    assert world.repaired() == []

    world.billing.query(
        "update billing_usage_counters set usage_count = 1 where gateway_customer_id < %s and period_start < %s",
        CUSTOMERS[2], MAY[0],
    )  # fmt: skip
    world.billing.query(
        "delete from billing_usage_counters where gateway_customer_id = %s and period_start < %s", CUSTOMERS[2], MAY[0]
    )
    assert_fixes(world)

    assert sorted(customer for customer, _, _ in world.repaired()) == list(CUSTOMERS[:3])


@pytest.fixture(params=[TICK, BARE_LOG])
def overflowing(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """A partitioned log whose partition of July was never made, so that its rows are in the default one."""
    world = worlds(request.param)
    world.billing.connection.execute(
        PARTITIONED.replace("for values from ('2025-05-15 00:00Z') to (maxvalue)", "default").encode()
    )
    if request.param != BARE_LOG:
        install_increments(world.billing.url)
    for customer in CUSTOMERS:
        for created_at in ("2025-05-10", "2025-05-20", "2025-06-03"):
            world.billing.add_event(customer, 4, created_at=created_at)
        world.billing.add_counter(customer, 12)
    world.settle_in()
    return world


MOVE_OUT = """
    create temporary table moved on commit drop as select * from billing_usage_events_late where false;
    with gone as (
        delete from billing_usage_events_late
        where created_at >= '2025-{month}-01 00:00Z' and created_at < '2025-{next}-01 00:00Z' returning *
    )
    insert into moved select * from gone;
    create table billing_usage_events_{month} partition of billing_usage_events
        for values from ('2025-{month}-01 00:00Z') to ('2025-{next}-01 00:00Z');
    insert into billing_usage_events_{month} select * from moved;
"""


def test_rows_that_move_from_the_default_partition_to_their_own_change_no_counter(overflowing: World) -> None:
    """Partition maintenance deletes rows here and inserts them there with all their columns, in one transaction."""
    statements = statement_count(overflowing)
    moved = MOVE_OUT.format(month="06", next="07")
    for number in range(first_moment(overflowing), statements + 2, 8):
        ended = overflowing.run(between=at(number, lambda: impatient(overflowing.billing, moved)))
        assert ended.outcome == "clean" or "put off" in ended.error, f"before statement {number}: {ended}"
        assert overflowing.repaired() == [], f"before statement {number}"
        with ExitStack() as stack:
            back = stack.enter_context(overflowing.billing.session())
            if back.value("select to_regclass('billing_usage_events_06')::text") is not None:
                back.connection.execute(
                    b"alter table billing_usage_events detach partition billing_usage_events_06;"
                    b"insert into billing_usage_events select * from billing_usage_events_06;"
                    b"drop table billing_usage_events_06"
                )
            back.connection.commit()
    assert_fixes(overflowing)
    assert overflowing.repaired() == []

    overflowing.billing.set_counter(CUSTOMERS[0], 3)
    overflowing.billing.connection.execute(b"begin;" + moved.encode() + b"commit")
    assert_fixes(overflowing)
    assert {customer for customer, _, _ in overflowing.repaired()} == {CUSTOMERS[0]}


def test_a_log_that_is_swapped_for_a_copy_of_itself_changes_no_right_counter(world: World) -> None:
    """A copy has new row versions, no triggers, and events that keep the transaction ids they had."""
    world.begin_settled(CUSTOMERS)
    numbers = count(1)

    def swap() -> None:
        impatient(world.billing, SWAP.replace("events_old", f"events_old_{next(numbers)}"))

    for number in range(2, statement_count(world) + 1, 7):
        ended = world.run(between=at(number, swap))
        assert ended.outcome == "clean" or "put off" in ended.error, f"before statement {number}: {ended}"
    assert world.repaired() == []

    world.billing.set_counter(CUSTOMERS[0], 3)
    world.billing.add_event(CUSTOMERS[1], 2)
    world.billing.query(
        "delete from billing_usage_events where gateway_customer_id = %s and quantity = 4", CUSTOMERS[2]
    )
    world.billing.set_counter(CUSTOMERS[2], 0)
    assert_fixes(world)
    assert world.billing.counter(CUSTOMERS[1]) == 14

    if world.mode != BARE_LOG:  # and the preparation of the log is made again
        install_increments(world.billing.url)
        world.billing.add_event(CUSTOMERS[3], 2)
        assert_fixes(world)
        assert world.billing.counter(CUSTOMERS[3]) == 14


def test_customers_that_are_merged_between_any_two_statements_raise_no_alarm(world: World) -> None:
    """Events and counters of one move to the other in one transaction."""
    world.begin_settled(customers(40))
    names = iter([*zip(customers(40)[::2], customers(40)[1::2], strict=True)])

    def merge() -> None:
        kept, merged = next(names)
        impatient(world.billing, MERGE.format(kept=kept, merged=merged))

    for number in range(2, statement_count(world) + 1, max(1, statement_count(world) // 15)):
        ended = world.run(between=at(number, merge))
        assert ended.outcome == "clean", f"before statement {number}: {ended}"
    assert world.repaired() == []

    kept, merged = next(names)
    world.billing.query(
        "update billing_usage_events set gateway_customer_id = %s where gateway_customer_id = %s", kept, merged
    )  # and their counters were forgotten
    assert_fixes(world)
    assert (world.billing.counter(kept), world.billing.counter(merged)) == (24, 0)


def local_month(zone: str, year: int, month: int) -> Period:
    """A calendar month as a customer in that time zone has it."""
    start = datetime(year, month, 1, tzinfo=ZoneInfo(zone))
    return start.astimezone(UTC), datetime(year, month + 1, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


ZONES = ["America/Los_Angeles", "Asia/Kathmandu", "Pacific/Kiritimati", "Europe/Prague", "America/St_Johns"]


def test_usage_at_the_last_moment_of_a_local_month_stays_in_the_period_it_was_billed_in(world: World) -> None:
    """Periods end at midnight of each customer; an event at that very moment was billed in one of the two."""
    name = world.billing.value("select current_database()")
    world.billing.query(f"alter database \"{name}\" set timezone = 'America/Los_Angeles'")
    periods: dict[str, Sequence[Period]] = {
        zone: [local_month(zone, 2025, month) for month in (3, 4, 5)] for zone in ZONES
    }
    with world.billing.session() as application:
        for zone, of_zone in periods.items():
            for period in of_zone:
                for moment in (period[0], period[1] - timedelta(microseconds=1)):
                    application.query(
                        "select record_billing_usage_event('stripe', %s, 'remote_commands', %s, %s, %s, 3, %s)",
                        zone, f"{zone} {period} {moment}", *period, moment,
                    )  # fmt: skip
        application.connection.commit()
    world.settle_in()
    assert world.repaired() == []

    for zone, of_zone in periods.items():
        world.billing.query(
            "update billing_usage_counters set usage_count = 60 where gateway_customer_id = %s and period_start = %s",
            zone, of_zone[1][0],
        )  # fmt: skip
    assert_fixes(world)

    assert sorted(world.repaired()) == sorted((zone, 60, 6) for zone in ZONES)


def test_a_period_that_is_cut_short_by_an_upgrade_is_a_key_of_its_own(world: World) -> None:
    """An upgrade ends the period early; usage after it goes to a new one, and neither takes from the other."""
    world.begin_settled(CUSTOMERS)
    upgraded = datetime(2025, 5, 17, 9, 30, tzinfo=UTC)
    short, new = (MAY[0], upgraded), (upgraded, JUNE[1])
    customer = CUSTOMERS[0]
    with world.billing.session() as application:  # as a billing system does it: what was recorded moves along
        for table in ("billing_usage_events", "billing_usage_counters"):
            application.query(
                f"update {table} set period_end = %s where gateway_customer_id = %s and period_end = %s",
                upgraded, customer, MAY[1],
            )  # fmt: skip
        application.record(customer, 7, period=new)
        application.connection.commit()
    assert_clean(world, world.run())
    assert world.repaired() == []

    world.billing.record(customer, 1, period=MAY)  # a straggler with the period as it was
    world.billing.add_event(customer, 2, period=short)
    assert_fixes(world)

    assert [world.billing.counter(customer, period=period) for period in (short, new, MAY)] == [14, 7, 1]


def test_refused_writers_leave_nothing_that_is_counted(world: World) -> None:
    """An increment that fails after its event was inserted takes the event with it, whatever is repaired meanwhile."""
    world.begin_settled(CUSTOMERS)
    world.billing.query("alter table billing_usage_counters add constraint capped check (usage_count <= 20)")
    for _ in range(3):
        with pytest.raises(psycopg.errors.CheckViolation):
            world.billing.record(CUSTOMERS[0], 9)
    assert_clean(world, world.run())
    assert world.repaired() == []
