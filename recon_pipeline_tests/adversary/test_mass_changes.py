"""A tick costs what changed, in proportion; the application never waits for the product; no change of events is lost.

An update or an erasure of very many events comes in one statement, before a run or in the middle of one.
"""

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from recon_pipeline_tests.adversary.world import World, fill_by_sql, statement_count
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.traffic import background
from recon_pipeline_tests.simulation.pipeline import Ended

pytestmark = pytest.mark.long

FEW, MANY, GROWTH = 2_000, 16_000, 12
"""Eight times as many keys may take twelve times as long: in proportion, with some noise."""

FLOOR_SECONDS = 0.25
"""What is faster than this is noise."""

NOTES_OF_ONE_KEY = 10
CHANGES = {
    "update": "update billing_usage_events set event_timestamp = event_timestamp + interval '1 second'",
    "erasure": "with gone as (delete from billing_usage_events) delete from billing_usage_counters",
}


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


@pytest.mark.timeout(120)
@pytest.mark.parametrize("change", CHANGES)
def test_a_tick_after_a_mass_change_takes_time_in_proportion_to_its_keys(incremental: World, change: str) -> None:
    world = incremental
    fill_by_sql(world.billing, 100, prefix="kept_")
    took: dict[int, float] = {}
    for keys in (FEW, MANY):
        fill_by_sql(world.billing, keys, prefix=f"of_{keys}_")
        world.settle_in()
        world.billing.query(f"set statement_timeout = '40s'; {of_keys(change, keys)}; reset statement_timeout")
        ended: list[Ended] = []
        took[keys] = seconds(lambda ended=ended: ended.append(world.run()))
        assert ended[0].outcome == "clean"
    assert took[MANY] <= GROWTH * max(took[FEW], FLOOR_SECONDS), took
    assert world.repaired() == []
    assert world.wrong() == []


def of_keys(change: str, keys: int) -> str:
    where = f"where gateway_customer_id like 'of_{keys}_%%'".replace("%%", "%")
    if change == "update":
        return f"{CHANGES['update']} {where}"
    return f"with gone as (delete from billing_usage_events {where}) delete from billing_usage_counters {where}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("part", [0.35, 0.55, 0.75], ids=["early", "in the middle", "late"])
def test_a_run_into_which_a_mass_change_falls_takes_time_in_proportion_to_its_keys(
    incremental: World, part: float
) -> None:
    world = incremental
    fill_by_sql(world.billing, 100, prefix="kept_")
    took: dict[int, float] = {}
    for keys in (FEW, MANY):
        fill_by_sql(world.billing, keys, prefix=f"of_{keys}_")
        world.settle_in()
        moment = int(statement_count(world) * part)
        changing = [0.0]

        def change(n: int, moment: int = moment, keys: int = keys, changing: list[float] = changing) -> None:
            if n == moment:
                changing[0] = seconds(lambda: world.billing.query(of_keys("update", keys)))

        ended: list[Ended] = []
        both = seconds(lambda ended=ended, change=change: ended.extend([world.run(between=change), world.run()]))
        took[keys] = both - changing[0]
        assert [one.outcome for one in ended] == ["clean", "clean"]
    assert took[MANY] <= GROWTH * max(took[FEW], FLOOR_SECONDS), took
    assert world.repaired() == []


def test_notes_of_one_key_do_not_pile_up_while_nobody_ticks(incremental: World) -> None:
    world = incremental
    world.fill(customers(3))
    world.settle_in()
    (event_id,) = world.billing.query("select id from billing_usage_events order by request_id limit 1")[0]

    for _ in range(200):
        world.billing.query(
            "update billing_usage_events set event_timestamp = event_timestamp + interval '1 second' where id = %s",
            event_id,
        )

    assert world.billing.value("select count(*) from recon.invalidated_key") <= NOTES_OF_ONE_KEY
    assert world.run().outcome == "clean"


def test_no_change_of_events_is_lost_between_concurrent_updates_and_ticks(ticking: World) -> None:
    world = ticking
    names = customers(6)
    world.fill(names, used=40, events=8)
    world.settle_in()
    stop = threading.Event()

    def change(seed: int) -> None:
        choices = random.Random(seed)  # noqa: S311 - not a secret
        with world.billing.session(autocommit=True) as session:
            ids = [row.id for row in session.query("select id from billing_usage_events order by request_id")]
            while not stop.is_set():
                picked = choices.sample(ids, 3)
                if choices.random() < 0.1:
                    session.query("delete from billing_usage_events where id = %s", picked[0])
                else:
                    session.query(
                        "update billing_usage_events set quantity = %s where id = any(%s)",
                        choices.randint(1, 50), sorted(picked[:1]),
                    )  # fmt: skip
                session.record(choices.choice(names), 1)

    with background() as start:
        for seed in range(3):
            start(change, seed)
        try:
            ended = [world.run() for _ in range(12)]
        finally:
            stop.set()

    assert {one.outcome for one in ended} <= {"clean", "not_clean"}
    assert world.run().outcome == "clean"
    assert world.wrong() == []
    assert world.run().outcome == "clean"


CHANGE_ONE = {
    "update": "update billing_usage_events set quantity = quantity + 1 where id = %s",
    "delete": "delete from billing_usage_events where id = %s",
}


@pytest.mark.parametrize("second", CHANGE_ONE)
@pytest.mark.parametrize("first", CHANGE_ONE)
def test_two_open_transactions_that_change_events_of_one_key_do_not_wait_for_each_other(
    incremental: World, first: str, second: str
) -> None:
    world = incremental
    world.fill(customers(2))
    world.settle_in()
    ids = [row.id for row in world.billing.query("select id from billing_usage_events order by gateway_customer_id")]

    with world.billing.session() as one, world.billing.session() as other:
        one.query(CHANGE_ONE[first], ids[0])
        other.query("set local lock_timeout = '1s'")
        other.query(CHANGE_ONE[second], ids[1])
        other.connection.commit()
        ended = world.run()
        one.connection.commit()

    assert ended.outcome == "clean"
    assert world.run().outcome == "clean"
    assert world.wrong() == []


def test_a_change_of_an_event_does_not_wait_for_a_run_at_any_of_its_statements(incremental: World) -> None:
    """A tick works on the notes of a key while the application makes another one."""
    world = incremental
    world.fill(customers(5))
    world.settle_in()
    ids = [row.id for row in world.billing.query("select id from billing_usage_events order by request_id")]
    waited: list[str] = []

    def change(n: int) -> None:
        with world.billing.session() as session:
            session.query("set local lock_timeout = '300ms'")
            try:
                session.query(CHANGE_ONE["update"], ids[n % len(ids)])
                session.connection.commit()
            except psycopg.errors.LockNotAvailable:
                waited.append(f"statement {n}")
                session.connection.rollback()

    world.billing.query(CHANGE_ONE["update"], ids[0])
    world.run(between=change)

    assert waited == []
    assert world.run().outcome == "clean"
    assert world.wrong() == []
