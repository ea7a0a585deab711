"""What leaves the log before any stored sum has counted it lowers no counter either: the triggers see it leave."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.adversary.test_settling import an_hour_passes, increment
from recon_pipeline_tests.adversary.world import APPROVED, BARE_LOG, NONE_LEFT, TICK, Application, World
from recon_pipeline_tests.backfill.inserting import insert_file
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.simulation.pipeline import Ended

CUSTOMERS = customers(4)
NEW = CUSTOMERS[1]
LEFT = "events_stay_in_the_log"
SHRINKS = {
    "deleted": ("delete from billing_usage_events where quantity = 7", 7),
    "lowered": ("update billing_usage_events set quantity = 2 where quantity = 7", 5),
    "given to another customer": (
        f"update billing_usage_events set gateway_customer_id = '{CUSTOMERS[2]}' where quantity = 7",
        7,
    ),
}


@pytest.fixture
def world(incremental: World) -> World:
    incremental.begin_settled(CUSTOMERS)
    return incremental


@pytest.fixture
def long_transaction(world: World) -> Iterator[Application]:
    """A session of the application that is in the middle of a transaction: nothing newer than it is summed."""
    with world.billing.session() as session:
        session.query("select pg_current_xact_id()")
        yield session


def run(world: World, *, approve: str = "", settle_seconds: int = 0) -> Ended:
    return world.run(budgets=NONE_LEFT, approve=approve, settle_seconds=settle_seconds)


@pytest.mark.usefixtures("long_transaction")
@pytest.mark.parametrize(("shrink", "units"), SHRINKS.values(), ids=SHRINKS)
@pytest.mark.parametrize("is_seen", [True, False], ids=["that a run has seen", "that no run has seen"])
def test_an_event_that_leaves_the_log_while_an_older_transaction_is_open_lowers_no_counter(
    world: World, shrink: str, units: int, is_seen: bool
) -> None:
    world.billing.record(NEW, 7)
    if is_seen:
        assert run(world).outcome == "clean"
    world.billing.query(shrink)

    ended = [run(world), run(world)]

    assert [one.failed_checks for one in ended] == [[LEFT, "counters_match_event_sums"]] * 2
    assert world.billing.counter(NEW) == 19
    assert world.billing.query("select units_left from recon.open_key where units_left > 0") == [(units,)]
    assert run(world, approve=APPROVED).outcome == "clean"
    assert world.billing.counter(NEW) == 19 - units
    assert world.wrong() == []


def test_what_left_is_shown_with_what_left_of_the_stored_sums(world: World, long_transaction: Application) -> None:
    world.billing.record(NEW, 7)
    world.billing.query("delete from billing_usage_events where gateway_customer_id = %s", NEW)
    run(world)
    long_transaction.connection.commit()

    run(world)

    latest = "select run_id from recon.reconciliation_run order by started_at desc limit 1"
    shown = f"select events_left, units_left from recon.counter_drift where run_id = ({latest})"
    assert world.billing.query(shown) == [(4, 19)]


def test_an_event_that_is_deleted_together_with_its_increment_is_no_reason_to_ask(
    world: World, long_transaction: Application
) -> None:
    world.billing.record(NEW, 7)
    assert run(world).outcome == "clean"
    world.billing.query("delete from billing_usage_events where quantity = 7")
    world.billing.query("update billing_usage_counters set usage_count = 12 where gateway_customer_id = %s", NEW)

    assert run(world).outcome == "clean"
    long_transaction.connection.commit()
    assert run(world).outcome == "clean"
    world.billing.set_counter(NEW, 100)
    assert run(world).outcome == "clean"
    assert world.repaired() == [(NEW, 100, 12)]


@pytest.mark.usefixtures("long_transaction")
@pytest.mark.parametrize(
    "change",
    [
        "update billing_usage_events set metadata = '{}', event_timestamp = event_timestamp + interval '1 hour'",
        "update billing_usage_events set quantity = 9 where quantity = 7",
    ],
    ids=["in what is not billed", "to more"],
)
def test_an_event_that_changes_and_stays_has_not_left(world: World, change: str) -> None:
    world.billing.record(NEW, 7)
    world.billing.query(change)
    world.billing.set_counter(NEW, 100)

    assert run(world).outcome == "clean"
    assert world.wrong() == []


def test_an_event_that_leaves_within_the_settle_seconds_lowers_no_counter(worlds: Callable[[str], World]) -> None:
    world = settled(worlds)
    world.billing.record(NEW, 7)
    assert run(world, settle_seconds=60).outcome == "clean"
    world.billing.query("delete from billing_usage_events where quantity = 7")

    assert LEFT in run(world, settle_seconds=60).failed_checks
    an_hour_passes(world)
    assert LEFT in run(world, settle_seconds=60).failed_checks
    assert world.billing.counter(NEW) == 19


def test_a_backfill_that_was_counted_and_is_deleted_at_once_lowers_no_counter(
    worlds: Callable[[str], World], tmp_path: Path
) -> None:
    world = settled(worlds)
    file = tmp_path / "late.csv"
    file.write_text(f"customer,request,units,at\n{NEW},late,7,2025-05-17T12:00:00Z\n")
    assert insert_file(world.billing.url, str(file), settle_seconds=60).inserted == 1
    assert run(world, settle_seconds=60).outcome == "clean"
    assert world.billing.counter(NEW) == 19
    world.billing.query("delete from billing_usage_events where metadata -> 'recon_backfill' is not null")

    assert LEFT in run(world, settle_seconds=60).failed_checks
    assert world.billing.counter(NEW) == 19


@pytest.mark.parametrize("mode", [TICK, BARE_LOG])
def test_what_left_is_remembered_while_an_increment_in_flight_lets_the_counter_look_right(
    worlds: Callable[[str], World], mode: str
) -> None:
    """A counter of 19 may be right while the log says 12 and 10 more may come; it was not."""
    world = settled(worlds, mode)
    world.billing.record(NEW, 7)
    assert run(world, settle_seconds=60).outcome == "clean"
    an_hour_passes(world)
    world.billing.query("delete from billing_usage_events where quantity = 7")
    assert LEFT in run(world, settle_seconds=60).failed_checks
    world.billing.add_event(NEW, 10)
    assert [run(world, settle_seconds=60).outcome for _ in range(2)] == ["clean"] * 2
    increment(world.billing, NEW, 10)

    assert LEFT in run(world, settle_seconds=60).failed_checks
    assert world.billing.counter(NEW) == 29
    an_hour_passes(world)
    assert run(world, settle_seconds=60, approve=APPROVED).outcome == "clean"
    assert world.billing.counter(NEW) == 22
    assert world.billing.query("select units_left from recon.open_key") == []


def test_what_left_is_forgotten_once_nothing_is_in_flight(worlds: Callable[[str], World]) -> None:
    world = settled(worlds)
    world.billing.record(NEW, 7)
    world.billing.query("delete from billing_usage_events where quantity = 7")
    world.billing.set_counter(NEW, 12)
    world.billing.record(NEW, 1)
    assert run(world, settle_seconds=60).outcome == "clean"
    assert world.billing.query("select units_left from recon.open_key") == [(7,)]
    an_hour_passes(world)
    assert run(world, settle_seconds=60).outcome == "clean"
    world.billing.set_counter(NEW, 100)

    assert run(world, settle_seconds=60).outcome == "clean"
    assert world.repaired() == [(NEW, 100, 13)]


def test_an_approval_is_used_up_although_increments_are_in_flight(worlds: Callable[[str], World]) -> None:
    world = settled(worlds)
    world.billing.record(NEW, 7)
    world.billing.query("delete from billing_usage_events where quantity = 7")
    world.billing.record(NEW, 1)
    assert LEFT in run(world, settle_seconds=60).failed_checks

    assert run(world, settle_seconds=60, approve=APPROVED).outcome == "clean"
    world.billing.set_counter(NEW, 100)
    assert run(world, settle_seconds=60).outcome == "clean"
    assert world.repaired() == [(NEW, 20, 13), (NEW, 100, 13)]


def settled(worlds: Callable[[str], World], mode: str = TICK) -> World:
    """Counters of 12 that are right; runs have seen all of it settle."""
    world = worlds(mode)
    world.fill(CUSTOMERS)
    for _ in range(3):
        assert world.run(settle_seconds=60).outcome == "clean"
        an_hour_passes(world)
    return world


def test_a_repetition_that_is_cleaned_away_before_it_was_summed_has_not_left(worlds: Callable[[str], World]) -> None:
    """Its application counted twice, which is drift; whoever deletes the second event has taken nothing away."""
    world = worlds(TICK)
    world.billing.query(
        "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key"
    )
    install_increments(world.billing.url)
    world.fill(CUSTOMERS)
    world.settle_in()
    with world.billing.session() as older:
        older.query("select pg_current_xact_id()")
        for _ in range(2):
            world.billing.add_event(NEW, 7, request_id="twice")
        world.billing.set_counter(NEW, 26)
        world.billing.query(
            "delete from billing_usage_events where ctid = (select max(ctid) from billing_usage_events "
            "where request_id = 'twice')"
        )

        assert run(world).outcome == "clean"
        assert world.repaired() == [(NEW, 26, 19)]


@pytest.fixture
def repeating(worlds: Callable[[str], World]) -> World:
    """A log that admits two events of one request id, and finds them by index."""
    world = worlds(TICK)
    world.billing.connection.execute(
        b"alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key;"
        b"create index on billing_usage_events (request_id)"
    )
    return world


def test_an_event_that_shares_its_request_id_with_others_is_missed_where_its_time_names_it(repeating: World) -> None:
    by_time = EventIdentity(("gateway_name", "request_id", "event_timestamp"))
    install_increments(repeating.billing.url, by_time)
    repeating.fill(CUSTOMERS)
    database = BillingDatabase(repeating.billing.url, event_identity=by_time)
    for approve in (APPROVED, ""):
        assert repeating.run(database=database, approve=approve).outcome == "clean"
    with repeating.billing.session() as older:
        older.query("select pg_current_xact_id()")
        for day, quantity in enumerate((7, 5), start=2):
            repeating.billing.add_event(NEW, quantity, request_id="one", event_timestamp=f"2025-05-0{day} 00:00Z")
        repeating.billing.set_counter(NEW, 24)
        assert repeating.run(database=database, budgets=NONE_LEFT).outcome == "clean"
        repeating.billing.query("delete from billing_usage_events where quantity = 7")

        assert LEFT in repeating.run(database=database, budgets=NONE_LEFT).failed_checks
        assert repeating.billing.counter(NEW) == 24


def test_an_event_is_missed_although_another_customer_has_one_of_its_request_id(repeating: World) -> None:
    install_increments(repeating.billing.url)
    repeating.fill(CUSTOMERS)
    repeating.settle_in()
    with repeating.billing.session() as older:
        older.query("select pg_current_xact_id()")
        for customer in (NEW, CUSTOMERS[2]):
            repeating.billing.add_event(customer, 7, request_id="one")
        repeating.billing.set_counter(NEW, 19)
        assert run(repeating).outcome == "clean"
        repeating.billing.query("delete from billing_usage_events where quantity = 7 and gateway_customer_id = %s", NEW)

        assert LEFT in run(repeating).failed_checks
        assert repeating.billing.counter(NEW) == 19


def test_an_event_from_before_there_were_transaction_ids_is_missed_once(worlds: Callable[[str], World]) -> None:
    """It has none, and the sums have counted it: what they miss is not in the note as well."""
    world = worlds(BARE_LOG)
    world.fill(CUSTOMERS)
    world.billing.record(NEW, 7)
    install_increments(world.billing.url)
    world.mode = TICK
    world.settle_in()
    world.billing.query("delete from billing_usage_events where quantity = 7")

    assert LEFT in run(world).failed_checks
    assert world.billing.query("select events_left, units_left from recon.open_key") == [(1, 7)]


def test_a_log_that_was_never_prepared_misses_what_the_last_run_has_seen(worlds: Callable[[str], World]) -> None:
    world = worlds(BARE_LOG)
    world.begin_settled(CUSTOMERS)
    with world.billing.session() as older:
        older.query("select pg_current_xact_id()")
        world.billing.record(NEW, 7)
        assert run(world).outcome == "clean"
        world.billing.query("delete from billing_usage_events where quantity = 7")

        assert LEFT in run(world).failed_checks
        assert world.billing.counter(NEW) == 19


@pytest.mark.usefixtures("long_transaction")
def test_notes_of_one_key_do_not_pile_up_while_no_run_takes_them(world: World) -> None:
    for number in range(30):
        world.billing.record(NEW, 1, request_id=f"short-{number}")
        world.billing.query("delete from billing_usage_events where request_id = %s", f"short-{number}")

    noted = "select events_left, units_left from recon.invalidated_key where gateway_customer_id = %s"
    assert world.billing.query(noted, NEW) == [(30, 30)]


@pytest.mark.usefixtures("long_transaction")
def test_sessions_that_delete_events_of_one_key_at_the_same_time_wait_for_each_other_in_nothing(world: World) -> None:
    world.billing.record(NEW, 5, request_id="first")
    world.billing.record(NEW, 7, request_id="second")
    world.billing.record(NEW, 9, request_id="third")
    delete = "delete from billing_usage_events where request_id = %s"
    world.billing.query(delete, "first")
    with world.billing.session() as one, world.billing.session() as other:
        one.query(delete, "second")
        other.query("set local lock_timeout = '1s'")
        other.query(delete, "third")
        one.connection.commit()
        other.connection.rollback()

    noted = "select events_left, units_left from recon.invalidated_key where gateway_customer_id = %s order by 2"
    assert world.billing.query(noted, NEW) == [(2, 12)]


@pytest.mark.parametrize("is_open", [True, False], ids=["while a transaction is open", "at once"])
@pytest.mark.parametrize(
    "shrink",
    [
        "truncate billing_usage_events",
        "create table kept as select * from billing_usage_events where gateway_customer_id <> 'newcomer'; "
        "truncate billing_usage_events; insert into billing_usage_events select * from kept",
    ],
    ids=["all of it", "and loaded without one customer"],
)
def test_a_truncated_log_lowers_no_counter_of_a_customer_of_whom_nothing_was_summed(
    world: World, shrink: str, is_open: bool
) -> None:
    with world.billing.session() as session:
        session.query("select pg_current_xact_id()")
        world.billing.record("newcomer", 7)
        assert run(world).outcome == "clean"
        if not is_open:
            session.connection.commit()
        world.billing.connection.execute(shrink.encode())

        for _ in range(2):
            ended = run(world)
            assert ended.outcome in {"not_clean", "blocked"}, ended
    assert run(world).outcome in {"not_clean", "blocked"}
    assert world.billing.counter("newcomer") == 7
