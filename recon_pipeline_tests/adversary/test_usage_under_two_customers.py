"""An application renames or merges customers and moves counters, not events: nobody's usage is set to 0."""

import pytest

from recon_pipeline_tests.adversary.world import APPROVED, NONE_LEFT, World
from recon_pipeline_tests.reconciliation.billing import customers

OLD, NEW, OTHER, LOST = "customer_0000", "renamed", *customers(4)[2:]
RENAME = "update billing_usage_counters set gateway_customer_id = %s where gateway_customer_id = %s"
MERGE = f"""
    with gone as (delete from billing_usage_counters where gateway_customer_id = '{OLD}' returning usage_count)
    update billing_usage_counters set usage_count = billing_usage_counters.usage_count + gone.usage_count
    from gone where gateway_customer_id = '{OTHER}'
"""
SENTENCE = (
    f"one usage under two customers: a counter of {NEW}, and events of {OLD} with the 12 units that it has too much; "
    "move the counter or the events, or take these units from the counter"
)


@pytest.fixture
def seen(world: World) -> World:
    """Counters of 12 that are right, and that runs have seen."""
    world.begin_settled(customers(4))
    return world


@pytest.fixture
def renamed(seen: World) -> World:
    """NEW was given the counter of OLD, but not its events; another increment was lost meanwhile."""
    seen.billing.query(RENAME, NEW, OLD)
    seen.billing.set_counter(LOST, 3)
    return seen


def left_alone(world: World) -> dict[str, str]:
    """What a run leaves alone, and why; it says so, and that it is not done."""
    world.billing.query("delete from recon.counter_drift")
    ended = world.run()
    assert ended.outcome == "not_clean"
    assert "counters_match_event_sums" in ended.failed_checks
    rows = world.billing.query(
        "select gateway_customer_id, kind, error from recon.counter_drift where outcome = 'doubtful'"
    )
    assert all(row.error.startswith("one usage under two customers") for row in rows)
    return {row.gateway_customer_id: row.kind for row in rows}


def test_a_counter_that_moved_to_another_customer_without_its_events_is_not_emptied_and_no_other_is_made(
    renamed: World,
) -> None:
    """The paying customer's usage was set to 0, and a counter was made that nobody reads."""
    for _ in range(2):
        assert left_alone(renamed) == {OLD: "missing", NEW: "orphan"}
        assert renamed.billing.counters() == {NEW: 12, **dict.fromkeys(customers(4)[1:], 12)}
    assert renamed.repaired() == [(LOST, 3, 12)]
    assert {row.error for row in renamed.billing.query("select error from recon.counter_drift")} == {SENTENCE}


def test_it_stays_so_while_both_names_are_counted_on(renamed: World) -> None:
    renamed.billing.record(NEW, 5)
    assert left_alone(renamed) == {OLD: "missing", NEW: "over"}
    renamed.billing.record(OLD, 2)
    for _ in range(2):
        assert left_alone(renamed) == {OLD: "under", NEW: "over"}
    assert (renamed.billing.counter(OLD), renamed.billing.counter(NEW)) == (2, 17)


def test_a_counter_that_was_added_to_another_customers_is_not_lowered(seen: World) -> None:
    seen.billing.query(MERGE)

    for _ in range(2):
        assert left_alone(seen) == {OLD: "missing", OTHER: "over"}
    assert seen.billing.counter(OTHER) == 24
    assert seen.repaired() == []


def test_it_is_not_emptied_because_its_events_leave_the_log(renamed: World) -> None:
    left_alone(renamed)
    renamed.billing.query("delete from billing_usage_events where gateway_customer_id = %s", OLD)

    for _ in range(2):
        assert "events_stay_in_the_log" in renamed.run(budgets=NONE_LEFT).failed_checks
        assert renamed.billing.counter(NEW) == 12


def test_events_that_moved_without_their_counter_are_asked_about_as_events_that_left(seen: World) -> None:
    seen.billing.query(RENAME.replace("counters", "events"), NEW, OLD)

    assert "events_stay_in_the_log" in seen.run(budgets=NONE_LEFT).failed_checks
    assert (seen.billing.counter(OLD), seen.billing.counter(NEW)) == (12, 12)
    assert seen.run(budgets=NONE_LEFT, approve=APPROVED).outcome == "clean"
    assert (seen.billing.counter(OLD), seen.billing.counter(NEW)) == (0, 12)


@pytest.mark.parametrize(
    ("statement", "values", "right"),
    [
        (RENAME.replace("counters", "events"), (NEW, OLD), {NEW: 12}),
        (RENAME, (OLD, NEW), {OLD: 12}),
        (
            "update billing_usage_counters set usage_count = usage_count - 12 where gateway_customer_id = %s",
            (NEW,),
            {OLD: 12, NEW: 0},
        ),
    ],
    ids=["the events follow", "the counter goes back", "the units are taken from the counter"],
)
def test_what_the_message_says_ends_it(
    renamed: World, statement: str, values: tuple[object, ...], right: dict[str, int]
) -> None:
    left_alone(renamed)
    renamed.billing.query(statement, *values)

    assert renamed.run().outcome == "clean"

    counters = renamed.billing.counters()
    assert {customer: counters[customer] for customer in (OLD, NEW) if customer in counters} == right


def test_lost_increments_and_a_replay_of_the_same_size_are_repaired(seen: World) -> None:
    """A counter that never was is no counter that was moved."""
    seen.billing.add_event("late", 12)
    seen.billing.add_counter("invented", 12)
    seen.billing.set_counter(LOST, 0)

    assert seen.run().outcome == "clean"

    assert (seen.billing.counter("late"), seen.billing.counter("invented"), seen.billing.counter(LOST)) == (12, 0, 12)


def test_a_deleted_counter_and_another_error_of_a_different_size_are_repaired(seen: World) -> None:
    seen.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", OLD)
    seen.billing.set_counter(OTHER, 25)

    assert seen.run().outcome == "clean"

    assert (seen.billing.counter(OLD), seen.billing.counter(OTHER)) == (12, 12)
