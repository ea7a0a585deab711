"""Backfilled events beside events in flight: no application increments the former, and the latter wait for theirs.

The writer has two transactions: an event is visible before its increment. A counter in between says nothing of what was
backfilled, so what is still to be counted is remembered, and counted once.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline_tests.adversary.test_credits_and_what_left import ALLOWED
from recon_pipeline_tests.adversary.test_settling import an_hour_passes, increment
from recon_pipeline_tests.adversary.world import Application, World
from recon_pipeline_tests.backfill.inserting import insert_file
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.pipeline import Ended

SETTLE_SECONDS = 60
CUSTOMERS = customers(6)
LATE, OTHER = CUSTOMERS[2], CUSTOMERS[4]
NEWCOMER = "newcomer"
UNCOUNTED = "select sum(units)::int from recon.uncounted_backfill"

Backfill = Callable[..., None]


@pytest.fixture
def world(ticking: World) -> World:
    """Counters of 12 that are right; runs have seen all of it settle."""
    ticking.fill(CUSTOMERS)
    for _ in range(3):
        assert run(ticking).outcome == "clean"
        an_hour_passes(ticking)
    return ticking


@pytest.fixture
def backfill(world: World, tmp_path: Path) -> Backfill:
    """`backfill({customer: units})` inserts an event of so many units each and compares nothing, as if killed then."""

    return partial(insert_late, world, tmp_path)


@pytest.fixture
def backfill_of_credits(world: World, tmp_path: Path) -> Backfill:
    """The same where events of negative quantity are credits."""
    return partial(insert_late, world, tmp_path, refuses_negative=False)


def insert_late(world: World, folder: Path, units: dict[str, int], **options: Any) -> None:
    file = folder / f"late-{len(list(folder.iterdir()))}.csv"
    rows = [f"{customer},{file.stem}-{customer},{used},2025-05-17T12:00:00Z" for customer, used in units.items()]
    file.write_text("\n".join(("customer,request,units,at", *rows)) + "\n")
    assert insert_file(world.billing.url, str(file), settle_seconds=SETTLE_SECONDS, **options).inserted == len(units)


def run(world: World, between: Callable[[int], object] | None = None) -> Ended:
    return world.run(settle_seconds=SETTLE_SECONDS, between=between)


def test_backfilled_events_are_counted_at_once(world: World, backfill: Backfill) -> None:
    backfill({LATE: 3, NEWCOMER: 5})

    ended = run(world)

    assert (ended.outcome, ended.mismatch_count) == ("clean", 0)
    assert world.repaired() == [(LATE, 12, 15), (NEWCOMER, None, 5)]
    assert world.wrong() == []
    assert run(world).outcome == "clean"
    assert world.wrong() == []


def test_backfilled_events_are_counted_at_once_however_much_the_application_has_counted_lately(
    world: World, backfill: Backfill
) -> None:
    """Its counter was between the settled and the visible sum all the same, so that nothing was to be repaired."""
    world.fill([LATE], used=100)
    backfill({LATE: 3})

    ended = run(world)

    assert (ended.outcome, ended.mismatch_count) == ("clean", 0)
    assert world.repaired() == [(LATE, 112, 115)]
    assert world.wrong() == []


def test_an_increment_that_is_still_to_come_is_added_to_what_was_backfilled(world: World, backfill: Backfill) -> None:
    world.billing.add_event(LATE, 5)
    backfill({LATE: 3})

    ended = [run(world), run(world)]

    assert world.billing.counter(LATE) == 15
    increment(world.billing, LATE, 5)
    ended += [run(world)]
    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 3
    assert world.repaired() == [(LATE, 12, 15)]
    assert world.wrong() == []


def test_an_increment_that_comes_between_any_two_statements_of_a_run_is_counted_once(
    world: World, backfill: Backfill
) -> None:
    for number in range(1, 90, 6):
        world.billing.add_event(LATE, 5)
        backfill({LATE: 3, OTHER: 1})
        came: list[int] = []

        def come(n: int, number: int = number, came: list[int] = came) -> None:
            if n == number:
                increment(world.billing, LATE, 5)
                came.append(n)

        ended = run(world, come)
        if not came:
            increment(world.billing, LATE, 5)
        assert ended.outcome == "clean", f"it came before statement {number}"
        assert world.wrong() == [], f"it came before statement {number}"


@pytest.mark.parametrize("hours", [0, 1, 30])
def test_what_a_killed_backfill_has_inserted_is_counted_by_the_next_run(
    world: World, backfill: Backfill, hours: int
) -> None:
    backfill({LATE: 3})
    for _ in range(hours):
        an_hour_passes(world)
    world.fill([LATE], used=100)

    assert run(world).outcome == "clean"
    assert world.repaired() == [(LATE, 112, 115)]
    assert world.wrong() == []


def test_what_is_counted_once_is_not_counted_again_with_an_increment_in_flight(
    world: World, backfill: Backfill
) -> None:
    backfill({LATE: 3})
    run(world)
    world.billing.add_event(LATE, 5)

    ended = [run(world), run(world)]

    assert [one.outcome for one in ended] == ["clean", "clean"]
    assert (world.billing.counter(LATE), world.billing.value(UNCOUNTED)) == (15, None)
    increment(world.billing, LATE, 5)
    assert world.wrong() == []


@pytest.fixture
def credited(world: World) -> World:
    """Both tables take negative numbers."""
    world.billing.connection.execute(ALLOWED.encode())
    return world


def run_with_credits(world: World) -> Ended:
    return world.run(settle_seconds=SETTLE_SECONDS, refuses_negative=False)


@pytest.mark.parametrize("lately", [0, 5, 100])
def test_a_backfilled_credit_is_counted_at_once_however_much_is_in_flight(
    credited: World, backfill_of_credits: Backfill, lately: int
) -> None:
    if lately:
        credited.billing.add_event(LATE, lately)
    backfill_of_credits({LATE: -3, NEWCOMER: -5})

    ended = [run_with_credits(credited), run_with_credits(credited)]

    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 2
    assert credited.repaired() == [(LATE, 12, 9), (NEWCOMER, None, -5)]
    if lately:
        increment(credited.billing, LATE, lately)
    assert run_with_credits(credited).outcome == "clean"


def test_a_credit_whose_decrement_is_in_flight_stands_beside_a_backfilled_one(
    credited: World, backfill_of_credits: Backfill
) -> None:
    credited.billing.add_event(LATE, -4)
    backfill_of_credits({LATE: -3})

    ended = [run_with_credits(credited), run_with_credits(credited)]

    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 2
    assert credited.billing.counter(LATE) == 9
    increment(credited.billing, LATE, -4)
    assert run_with_credits(credited).outcome == "clean"
    assert credited.repaired() == [(LATE, 12, 9)]


def test_usage_and_a_credit_that_are_backfilled_together_are_counted_at_once(
    credited: World, backfill_of_credits: Backfill
) -> None:
    credited.billing.add_event(LATE, 5)
    backfill_of_credits({LATE: -3, OTHER: -3})
    backfill_of_credits({LATE: 10, OTHER: 3})

    ended = [run_with_credits(credited), run_with_credits(credited)]

    assert [(one.outcome, one.mismatch_count) for one in ended] == [("clean", 0)] * 2
    assert credited.repaired() == [(LATE, 12, 19)]
    increment(credited.billing, LATE, 5)
    assert run_with_credits(credited).outcome == "clean"


def test_a_backfilled_credit_that_is_deleted_before_a_run_counts_it_is_not_counted(
    credited: World, backfill_of_credits: Backfill
) -> None:
    backfill_of_credits({LATE: -3, OTHER: -3, NEWCOMER: -4})
    backfill_of_credits({LATE: 3, OTHER: 10})
    credited.billing.query("delete from billing_usage_events where metadata -> 'recon_backfill' is not null")

    assert run_with_credits(credited).outcome == "clean"

    assert (credited.repaired(), credited.billing.value(UNCOUNTED)) == ([], None)


def test_a_counter_from_which_a_credit_was_taken_by_hand_is_not_lowered_again(
    credited: World, backfill_of_credits: Backfill
) -> None:
    backfill_of_credits({LATE: -3})
    credited.billing.set_counter(LATE, 9)

    assert run_with_credits(credited).outcome == "clean"
    assert run_with_credits(credited).outcome == "clean"
    assert (credited.repaired(), credited.billing.counter(LATE)) == ([], 9)


def test_a_counter_that_was_set_right_by_hand_is_not_raised_again(world: World, backfill: Backfill) -> None:
    backfill({LATE: 3})
    world.billing.set_counter(LATE, 15)

    assert run(world).outcome == "clean"
    world.billing.add_event(LATE, 5)
    assert run(world).outcome == "clean"

    assert (world.repaired(), world.billing.counter(LATE)) == ([], 15)
    increment(world.billing, LATE, 5)
    assert world.wrong() == []


def test_a_counter_that_another_session_has_locked_is_reported_and_counted_by_the_next_run(
    world: World, backfill: Backfill
) -> None:
    world.fill([LATE], used=100)
    backfill({LATE: 3, OTHER: 1})
    with world.billing.session() as busy:
        busy.query("select from billing_usage_counters where gateway_customer_id = %s for update", LATE)
        ended = run(world)
    assert (ended.outcome, ended.mismatch_count, world.repaired()) == ("not_clean", 1, [(OTHER, 12, 13)])

    assert run(world).outcome == "clean"
    assert world.repaired() == [(OTHER, 12, 13), (LATE, 112, 115)]
    assert world.wrong() == []


def test_backfilled_events_of_a_held_customer_are_counted_once_the_hold_has_ended(
    world: World, backfill: Backfill
) -> None:
    world.billing.query(
        "insert into recon.hold (gateway_customer_id, reason, held_by, until) "
        "values (%s, 'asked', 'tests', now() + interval '1 hour')",
        LATE,
    )
    backfill({LATE: 3})
    assert (run(world).outcome, world.billing.counter(LATE)) == ("not_clean", 12)

    world.billing.query("delete from recon.hold")
    world.fill([LATE], used=100)
    assert run(world).outcome == "clean"
    assert world.repaired() == [(LATE, 112, 115)]


def test_backfilled_events_that_are_deleted_before_a_run_counts_them_are_not_counted(
    world: World, backfill: Backfill
) -> None:
    backfill({LATE: 3, NEWCOMER: 5})
    world.billing.query("delete from billing_usage_events where metadata -> 'recon_backfill' is not null")

    assert run(world).outcome == "clean"

    assert (world.repaired(), world.wrong(), world.billing.value(UNCOUNTED)) == ([], [], None)


def test_events_that_are_inserted_one_by_one_because_the_log_refused_another_are_counted_at_once(
    world: World, tmp_path: Path
) -> None:
    world.billing.query("alter table billing_usage_events add constraint no_thirteen check (quantity <> 13)")
    file = tmp_path / "late.csv"
    rows = [f"{LATE},late-{units},{units},2025-05-17T12:00:00Z" for units in (3, 13, 4)]
    file.write_text("\n".join(("customer,request,units,at", *rows)) + "\n")
    assert insert_file(world.billing.url, str(file), settle_seconds=SETTLE_SECONDS).rejected == 1

    assert run(world).outcome == "clean"
    assert world.repaired() == [(LATE, 12, 19)]


def test_a_backfill_beside_traffic_of_the_same_customer_leaves_a_right_counter(
    world: World, backfill: Backfill
) -> None:
    """Two backfills, an event whose increment comes late and one whose increment is lost, one after the other."""
    application: Application = world.billing
    application.add_event(LATE, 5)
    backfill({LATE: 3})
    run(world)
    application.add_event(LATE, 7)
    backfill({LATE: 4})
    run(world)
    assert application.counter(LATE) == 19
    increment(application, LATE, 5)
    assert application.counter(LATE) == 24

    for _ in range(3):
        an_hour_passes(world)
        run(world)

    assert application.counter(LATE) == 31, "the increment of 7 was lost"
    assert world.wrong() == []
