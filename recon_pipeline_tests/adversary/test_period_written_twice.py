"""One period written in two ways, by drivers that cut microseconds or an end that moved: none of the two is touched.

So it is with a counter that an application moves to another period, as at a change of plan, while its events stay.
"""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline_tests.adversary.world import NONE_LEFT, TICK, World
from recon_pipeline_tests.reconciliation.billing import MAY, Period, customers

CUSTOMERS = customers(4)
TWICE, OTHER = CUSTOMERS[1], CUSTOMERS[2]
BY_THE_LOG: Period = (MAY[0], datetime(2025, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC))
BY_THE_COUNTER: Period = (MAY[0], datetime(2025, 5, 31, 23, 59, 59, 999_000, tzinfo=UTC))
MOVED: Period = (MAY[0], datetime(2025, 5, 20, tzinfo=UTC))
WITHOUT_END = """
    alter table billing_usage_counters drop constraint
        billing_usage_counters_gateway_name_gateway_customer_id_usa_key;
    alter table billing_usage_counters add unique (gateway_name, gateway_customer_id, usage_type, period_start)
"""
SENTENCE = "one period written in two ways"
UPGRADED: Period = (datetime(2025, 5, 17, 9, 30, tzinfo=UTC), datetime(2025, 6, 17, 9, 30, tzinfo=UTC))
TWO_PERIODS = (
    "one usage under two periods: a counter of 2025-05-17 09:30:00+00 to 2025-06-17 09:30:00+00, and events of "
    "2025-05-01 00:00:00+00 to 2025-06-01 00:00:00+00; move the counter or the events, or set the counter to 0"
)
MOVE_COUNTER = """
    update billing_usage_counters set period_start = %s, period_end = %s
    where gateway_customer_id = %s and period_start = %s
"""
MOVE_EVENTS = MOVE_COUNTER.replace("counters", "events")


@pytest.fixture
def seen(world: World) -> World:
    """Counters of 12 that are right, and that runs have seen."""
    world.begin_settled(CUSTOMERS)
    return world


def doubtful(world: World) -> set[tuple[str, str]]:
    rows = world.billing.query("select gateway_customer_id, kind, outcome, error from recon.counter_drift")
    assert all(row.error.startswith((SENTENCE, TWO_PERIODS)) for row in rows if row.outcome == "doubtful")
    return {(row.gateway_customer_id, row.kind) for row in rows if row.outcome == "doubtful"}


def counted(world: World, customer: str = TWICE) -> list[tuple[datetime, int]]:
    found = world.billing.query(
        "select period_end, usage_count from billing_usage_counters where gateway_customer_id = %s order by 1", customer
    )
    return [(end.astimezone(UTC), count) for end, count in found]


@pytest.mark.parametrize(
    ("log", "counter"),
    [
        (BY_THE_LOG, BY_THE_COUNTER),
        (BY_THE_COUNTER, BY_THE_LOG),
        (MAY, BY_THE_LOG),
        ((MAY[0] + timedelta(microseconds=999_999), MAY[1]), MAY),
        ((MAY[0], MAY[1] - timedelta(seconds=1)), MAY),  # 23:59:59, as an inclusive end is written
    ],
)
def test_a_counter_whose_events_carry_its_period_cut_otherwise_is_not_emptied_and_no_other_is_made(
    seen: World, log: Period, counter: Period
) -> None:
    seen.billing.query("delete from billing_usage_events where gateway_customer_id = %s", TWICE)
    seen.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", TWICE)
    for _ in range(3):
        seen.billing.add_event(TWICE, 5, period=log)
    seen.billing.add_counter(TWICE, 15, period=counter)
    seen.billing.set_counter(OTHER, 3)

    for _ in range(2):
        ended = seen.run()
        assert (ended.outcome, ended.mismatch_count) == ("not_clean", 2)
        assert "periods_are_written_in_one_way" in ended.failed_checks

    assert counted(seen) == [(counter[1], 15)]
    assert doubtful(seen) == {(TWICE, "missing"), (TWICE, "orphan")}
    assert seen.repaired() == [(OTHER, 3, 12)]


def test_two_periods_more_than_a_second_apart_are_two(seen: World) -> None:
    apart = (MAY[0], MAY[1] - timedelta(seconds=1, microseconds=1))
    seen.billing.add_event(TWICE, 5, period=apart)
    seen.billing.set_counter(TWICE, 3)

    assert seen.run().outcome == "clean"

    assert counted(seen) == [(apart[1], 5), (MAY[1], 12)]


def test_events_that_begin_to_carry_the_period_cut_otherwise_leave_the_right_counter_and_make_no_other(
    seen: World,
) -> None:
    seen.billing.add_event(TWICE, 5, period=BY_THE_LOG)

    assert seen.run().outcome == "not_clean"

    assert counted(seen) == [(MAY[1], 12)]


def test_a_period_whose_end_moved_empties_no_counter_that_is_unique_without_it(world: World) -> None:
    world.billing.connection.execute(WITHOUT_END.encode())
    for customer in CUSTOMERS:
        world.billing.add_event(customer, 12)
        world.billing.add_counter(customer, 12)
    world.settle_in()
    world.billing.query(
        "update billing_usage_counters set period_end = %s, usage_count = 17 where gateway_customer_id = %s",
        MOVED[1], TWICE,
    )  # fmt: skip
    world.billing.add_event(TWICE, 5, period=MOVED)
    world.billing.set_counter(OTHER, 3)

    for _ in range(2):
        ended = world.run()
        assert (ended.outcome, ended.mismatch_count) == ("not_clean", 2)
        assert "periods_are_written_in_one_way" in ended.failed_checks

    assert counted(world) == [(MOVED[1], 17)]
    assert doubtful(world) == {(TWICE, "missing"), (TWICE, "over")}
    assert world.repaired() == [(OTHER, 3, 12)]


def test_two_counters_of_one_period_are_reported_although_neither_has_drifted(seen: World) -> None:
    seen.billing.record(TWICE, 5, period=BY_THE_LOG)
    before = counted(seen)

    ended = seen.run()

    assert ended.outcome == "clean"
    reads_everything = seen.mode != TICK
    assert ("periods_are_written_in_one_way" in ended.failed_checks) is reads_everything
    assert counted(seen) == before
    assert seen.repaired() == []


@pytest.fixture
def upgraded(seen: World) -> World:
    """A change of plan began the period of TWICE anew: its counter was moved, and its 12 units of events were not."""
    seen.billing.query("set time zone 'UTC'")
    seen.billing.query(MOVE_COUNTER, *UPGRADED, TWICE, MAY[0])
    seen.billing.set_counter(OTHER, 3)
    return seen


def left_alone(world: World) -> set[tuple[str, str]]:
    """What a run leaves alone; it says so, and that it is not done."""
    world.billing.query("delete from recon.counter_drift")
    ended = world.run()
    assert ended.outcome == "not_clean"
    assert "periods_are_written_in_one_way" in ended.failed_checks
    return doubtful(world)


def test_a_counter_that_moved_to_another_period_without_its_events_is_not_emptied_and_no_other_is_made(
    upgraded: World,
) -> None:
    """The counter that the application enforces was set to 0, and one was made that nobody reads."""
    for _ in range(2):
        assert left_alone(upgraded) == {(TWICE, "orphan"), (TWICE, "missing")}
        assert counted(upgraded) == [(UPGRADED[1], 12)]
    assert upgraded.repaired() == [(OTHER, 3, 12)]


def test_it_stays_so_while_the_application_counts_on(upgraded: World) -> None:
    left_alone(upgraded)
    upgraded.billing.record(TWICE, 5, period=UPGRADED)
    assert left_alone(upgraded) == {(TWICE, "over"), (TWICE, "missing")}
    # What came late was counted by its own period, so that each of the two has events and a counter now.
    upgraded.billing.record(TWICE, 2)
    for _ in range(2):
        assert left_alone(upgraded) == {(TWICE, "over"), (TWICE, "under")}
    assert counted(upgraded) == [(MAY[1], 2), (UPGRADED[1], 17)]


def test_it_is_not_emptied_because_its_events_leave_the_log(upgraded: World) -> None:
    left_alone(upgraded)
    upgraded.billing.query("delete from billing_usage_events where gateway_customer_id = %s", TWICE)

    for _ in range(2):
        assert "events_stay_in_the_log" in upgraded.run(budgets=NONE_LEFT).failed_checks
        assert counted(upgraded) == [(UPGRADED[1], 12)]


@pytest.mark.parametrize(
    ("statement", "values", "right"),
    [
        (MOVE_EVENTS, (*UPGRADED, TWICE, MAY[0]), [(UPGRADED[1], 12)]),
        (MOVE_COUNTER, (*MAY, TWICE, UPGRADED[0]), [(MAY[1], 12)]),
        (
            "update billing_usage_counters set usage_count = 0 where gateway_customer_id = %s",
            (TWICE,),
            [(MAY[1], 12), (UPGRADED[1], 0)],
        ),
    ],
    ids=["the events follow", "the counter goes back", "the counter begins anew"],
)
def test_what_the_message_says_ends_it(
    upgraded: World, statement: str, values: tuple[object, ...], right: list[tuple[datetime, int]]
) -> None:
    left_alone(upgraded)
    upgraded.billing.query(statement, *values)
    assert upgraded.run().outcome == "clean"
    assert counted(upgraded) == right


def test_a_run_of_one_of_the_two_months_leaves_alone_what_a_run_of_both_has_found(incremental: World) -> None:
    """The whole counter of May was carried into a period that begins in June, before May's end in the next zone."""
    incremental.begin_settled(CUSTOMERS)
    june = (datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC))
    late = (MAY[0] + timedelta(days=1), june[0] + timedelta(hours=9))
    incremental.billing.query(MOVE_EVENTS, *late, TWICE, MAY[0])
    incremental.billing.query(MOVE_COUNTER, *june, TWICE, MAY[0])
    assert incremental.run().mismatch_count == 2

    for month in ("2025-05", "2025-06"):
        assert incremental.run(months=(month, month)).mismatch_count == 1
    assert counted(incremental) == [(june[1], 12)]


def test_periods_that_only_touch_or_belong_to_others_are_repaired(seen: World) -> None:
    """Whose counters were deleted and whose events were, each by a mistake of its own."""
    june = (MAY[1], MAY[1] + timedelta(days=30))
    seen.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", TWICE)
    seen.billing.add_counter(TWICE, 7, period=june)
    seen.billing.add_counter(OTHER, 9, period=UPGRADED)
    seen.billing.add_counter(TWICE, 8, period=(MAY[0] - timedelta(days=30), MAY[0]))

    assert seen.run().outcome == "clean"

    assert [count for _, count in counted(seen)] == [0, 12, 0]
    assert counted(seen, OTHER) == [(MAY[1], 12), (UPGRADED[1], 0)]


def test_a_counter_that_is_too_high_beside_one_that_is_too_low_is_no_moved_one(seen: World) -> None:
    """Two periods may overlap where a change of plan began another: both have their events and their counters."""
    seen.billing.record(TWICE, 5, period=UPGRADED)
    seen.run()
    seen.billing.query(
        "update billing_usage_counters set usage_count = usage_count + 4 where period_start = %s", UPGRADED[0]
    )
    seen.billing.set_counter(TWICE, 1)

    assert seen.run().outcome == "clean"

    assert counted(seen) == [(MAY[1], 12), (UPGRADED[1], 5)]
