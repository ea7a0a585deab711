"""No false alarm, and right counters stay: traffic on more keys than any sample, between every two steps of a run.

The application records in one transaction, so every counter is right at every moment: no run has anything to say.
"""

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from recon_pipeline_tests.adversary.world import Application, World
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.traffic import APPLICATION, background, wait_until
from recon_pipeline_tests.simulation.pipeline import Ended

CUSTOMERS = customers(500)
RUNS = 3
"""The first one meets no earlier traffic, the second meets some that came in between, and so does every later one."""


@contextmanager
def traffic(billing: Billing, *, calls_per_second: float | None, threads: int = 2) -> Iterator[list[int]]:
    """The recorder at this rate in all, or at full speed, until the block ends; gives how many calls there were."""
    calls, stop = [0], threading.Event()

    def write(seed: int) -> None:
        choices = random.Random(seed)  # noqa: S311 - not a secret
        with billing.session(autocommit=True, application_name=APPLICATION) as session:
            while not stop.is_set():
                session.record(choices.choice(CUSTOMERS), choices.randint(1, 9))
                calls[0] += 1
                if calls_per_second is not None:
                    stop.wait(threads / calls_per_second)

    with background() as start:
        for seed in range(threads):
            start(write, seed)
        try:
            yield calls
        finally:
            stop.set()


def assert_nothing_to_say(world: World, runs: list[Ended]) -> None:
    outcomes = [(run.outcome, run.failed_checks, run.mismatch_count, run.error) for run in runs]
    assert outcomes == [("clean", [], 0, "")] * len(runs)
    assert world.repaired() == []
    assert world.wrong() == []
    assert world.billing.value("select count(*) from recon.counter_drift") == 0


@pytest.mark.parametrize("keys", [1, 40])
def test_many_keys_recorded_between_every_two_statements_raise_no_alarm(world: World, keys: int) -> None:
    world.begin_settled(CUSTOMERS)
    turns = itertools.cycle(CUSTOMERS)

    def record(_: int) -> None:
        world.billing.record_each(itertools.islice(turns, keys), 3)

    assert_nothing_to_say(world, [world.run(between=record) for _ in range(RUNS)])


def test_new_customers_between_every_two_statements_raise_no_alarm(world: World) -> None:
    world.begin_settled(CUSTOMERS[:50])
    numbers = itertools.count()

    def record(_: int) -> None:
        world.billing.record_each([f"newcomer_{next(numbers)}" for _ in range(20)], 3)

    assert_nothing_to_say(world, [world.run(between=record) for _ in range(RUNS)])


def test_many_keys_recorded_before_every_commit_raise_no_alarm(world: World) -> None:
    world.begin_settled(CUSTOMERS)
    turns = itertools.cycle(CUSTOMERS)

    def record(_: int) -> None:
        world.billing.record_each(itertools.islice(turns, 150), 3)

    assert_nothing_to_say(world, [world.run(before_commit=record) for _ in range(RUNS)])


@pytest.mark.parametrize("calls_per_second", [25, None], ids=["25 a second", "full speed"])
def test_concurrent_traffic_raises_no_alarm(world: World, calls_per_second: float | None) -> None:
    world.begin_settled(CUSTOMERS)
    runs: list[Ended] = []

    with traffic(world.billing, calls_per_second=calls_per_second) as calls:
        for _ in range(RUNS):
            seen = calls[0]
            wait_until(lambda seen=seen: calls[0] >= seen + 20)
            runs.append(world.run())

    assert_nothing_to_say(world, runs)


def test_transactions_that_stay_open_over_the_steps_of_a_run_raise_no_alarm(world: World) -> None:
    """Each records thirty customers before one statement and commits before another, a few statements later."""
    world.begin_settled(CUSTOMERS)
    turns = itertools.cycle(CUSTOMERS)
    opened: list[Application] = []

    def overlap(n: int) -> None:
        if len(opened) < 3:
            session = stack.enter_context(world.billing.session())
            session.record_each(itertools.islice(turns, 30), 2)
            opened.append(session)
        elif n % 3 == 0:
            committed = opened.pop(0).connection
            committed.commit()
            committed.close()

    with ExitStack() as stack:
        runs = [world.run(between=overlap) for _ in range(3)]
        for session in opened:
            session.connection.commit()

    assert_nothing_to_say(world, runs)


def test_what_did_drift_is_repaired_beside_traffic_and_nothing_else_is_touched(world: World) -> None:
    world.begin_settled(CUSTOMERS)
    drifted = CUSTOMERS[100:110]
    for customer in drifted:
        world.billing.set_counter(customer, 1)
    turns = itertools.cycle([*CUSTOMERS[:100], *CUSTOMERS[110:]])

    def record(_: int) -> None:
        world.billing.record_each(itertools.islice(turns, 40), 3)

    ended = world.run(between=record)

    assert (ended.outcome, ended.failed_checks) == ("clean", [])
    assert sorted(row[0] for row in world.repaired()) == list(drifted)
    assert world.wrong() == []
