"""One period written in two ways, by drivers that cut microseconds or an end that moved: none of the two is touched."""

from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline_tests.adversary.world import TICK, World
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


@pytest.fixture
def seen(world: World) -> World:
    """Counters of 12 that are right, and that runs have seen."""
    world.begin_settled(CUSTOMERS)
    return world


def doubtful(world: World, run: str = "") -> set[tuple[str, str]]:
    rows = world.billing.query("select gateway_customer_id, kind, outcome, error from recon.counter_drift")
    assert all(SENTENCE in row.error for row in rows if row.outcome == "doubtful")
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
