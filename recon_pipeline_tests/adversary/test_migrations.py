"""Snapshots are taken after locks, and right counters stay: the log or the counters are altered while a run works.

A table rewrite and TRUNCATE are not MVCC-safe: a snapshot from before them sees an empty table. Row level security that
is switched on hides rows without an error. At every moment each transaction that begins sees forty right counters, so a
run has nothing to say of them; what it changes, or says it could not, are the few that were made wrong for it.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from urllib.parse import urlsplit

import psycopg
import pytest

from recon_pipeline_tests.adversary.world import (
    APPROVED,
    BARE_LOG,
    MODES,
    NONE_LEFT,
    PUT_OFF,
    TICK,
    World,
    at,
    holding,
    impatient,
    statement_count,
)
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.reconciliation.test_table_shapes import PARTITIONED
from recon_pipeline_tests.reconciliation.test_untrustworthy_log import role
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, background, wait_until
from recon_pipeline_tests.simulation.pipeline import Ended

RIGHT, WRONG = customers(40, prefix="right"), customers(4, prefix="wrong")
LONGEST_WAIT_SECONDS = 15.0
RELOAD = """
    create temporary table saved on commit drop as select {columns} from billing_usage_events;
    truncate billing_usage_events;
    insert into billing_usage_events ({columns}) select {columns} from saved;
"""
GIVEN = (
    "id, gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end, "
    "event_timestamp, metadata, created_at"
)
MIGRATIONS: dict[str, Callable[[int], str]] = {
    "the quantity gets another type": lambda n: (
        f"alter table billing_usage_events alter quantity type {'bigint' if n % 2 else 'integer'}"
    ),
    "the log gets a column of random ids": lambda n: (
        f"alter table billing_usage_events add column extra_{n} uuid default gen_random_uuid()"
    ),
    "the log is reloaded": lambda _: RELOAD.format(columns=GIVEN),
    "the counters get another type": lambda n: (
        f"alter table billing_usage_counters alter usage_count type {'integer' if n % 2 else 'bigint'}"
    ),
    "the counters get a column of random ids": lambda n: (
        f"alter table billing_usage_counters add column extra_{n} uuid default gen_random_uuid()"
    ),
    "the log is rewritten in place": lambda _: "alter table billing_usage_events set unlogged",
}
MIGRATED = pytest.mark.parametrize("migration", MIGRATIONS)


def sql_of(migration: str, n: int) -> str:
    text = MIGRATIONS[migration](n)
    return text.replace("unlogged", "logged") if n % 2 == 0 else text


@pytest.fixture
def world(ticking: World) -> World:
    """Forty counters of 12 that are right, and four of 5 that are to be 12; the product knows the database."""
    world = ticking
    world.begin_settled([*RIGHT, *WRONG])
    spoil(world)
    return world


def spoil(world: World) -> None:
    world.billing.query("update billing_usage_counters set usage_count = 5 where gateway_customer_id like 'wrong%%'")


def moments(world: World, *, every: int, first: int = 0) -> range:
    """Numbers of statements of a run, others in each mode, and the first ones after its end."""
    first += MODES.index(world.mode)
    return range(1 + first % every, statement_count(world) + 8, every)


def turn_of(migration: str) -> int:
    """Each migration comes before other statements."""
    return 4 * [*MIGRATIONS].index(migration)


def assert_unharmed(world: World, ended: Ended, *, at_least: str = "") -> None:
    """No right counter was changed; the run is clean, or was put off, or reports the wrong counters that are left."""
    counters = world.billing.counters()
    context = f"{at_least} {ended}"
    assert {customer: counters[customer] for customer in RIGHT} == dict.fromkeys(RIGHT, 12), context
    assert {(before, after) for _, before, after in world.repaired()} <= {(5, 12)}, context
    assert {customer for customer, _, _ in world.repaired()} <= set(WRONG), context
    left = len(world.wrong())
    if ended.outcome in ("clean", "not_clean"):
        assert ended.mismatch_count == left, context
    else:
        assert PUT_OFF in ended.error, context


def assert_fixes_itself(world: World) -> None:
    """Once nobody migrates any more, runs are clean and every counter is right."""
    ended = [world.run() for _ in range(2)][-1]
    assert (ended.outcome, ended.mismatch_count) == ("clean", 0), ended
    assert world.wrong() == []


@MIGRATED
def test_a_migration_before_every_statement_of_a_run_changes_no_right_counter(world: World, migration: str) -> None:
    numbers = count(1)

    ended = world.run(between=lambda _: impatient(world.billing, sql_of(migration, next(numbers))))

    assert_unharmed(world, ended)
    assert_fixes_itself(world)


@MIGRATED
def test_a_migration_between_any_two_statements_of_a_run_changes_no_right_counter(world: World, migration: str) -> None:
    for number in moments(world, every=4 * len(MIGRATIONS), first=turn_of(migration)):
        spoil(world)
        ended = world.run(between=at(number, lambda n=number: impatient(world.billing, sql_of(migration, n))))
        assert_unharmed(world, ended, at_least=f"before statement {number}:")
    assert_fixes_itself(world)


@MIGRATED
def test_a_migration_that_a_run_waits_for_changes_no_right_counter(world: World, migration: str) -> None:
    """It is under way before a statement and is committed as soon as the run waits for it."""
    for number in moments(world, every=8 * len(MIGRATIONS), first=turn_of(migration)):
        spoil(world)
        with ExitStack() as stack:
            committing = stack.enter_context(commits_once_the_run_waits(world))
            begin = at(number, lambda c=committing, n=number: c(sql_of(migration, n)))
            ended = world.run(between=begin)
        assert_unharmed(world, ended, at_least=f"before statement {number}:")
    assert_fixes_itself(world)


@contextmanager
def commits_once_the_run_waits(world: World) -> Iterator[Callable[[str], None]]:
    """Gives a function that runs statements in a session of their own, which is committed in a thread."""
    is_over = threading.Event()
    with ExitStack() as stack, background() as start:

        def migrate(statements: str) -> None:
            session = stack.enter_context(world.billing.session())
            session.query("set local lock_timeout = 20")
            try:
                session.connection.execute(statements.encode())
            except psycopg.errors.LockNotAvailable:  # somebody holds the table, so there is no migration this time
                session.connection.rollback()
                return
            start(commit, session)

        def commit(session: Billing) -> None:
            wait_until(lambda: is_over.is_set() or is_waiting(world))
            session.connection.commit()

        try:
            yield migrate
        finally:
            is_over.set()


def is_waiting(world: World) -> bool:
    with world.billing.session() as watching:
        return bool(
            watching.value(
                "select count(*) from pg_stat_activity "
                "where datname = current_database() and application_name = %s and wait_event_type = 'Lock'",
                PRODUCT,
            )
        )


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters"])
def test_a_migration_that_keeps_its_lock_for_long_puts_the_run_off(world: World, table: str) -> None:
    before = world.billing.counters()
    began = time.monotonic()

    with holding(world.billing, f"lock table {table} in access exclusive mode"):
        ended = world.run()

    assert ended.outcome == "failed"
    assert PUT_OFF in ended.error
    assert time.monotonic() - began < LONGEST_WAIT_SECONDS
    assert world.billing.counters() == before
    assert world.repaired() == []
    assert_fixes_itself(world)


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters"])
def test_a_migration_that_locks_at_any_statement_and_never_ends_puts_the_run_off(world: World, table: str) -> None:
    for number in range(2, statement_count(world) + 1, 24):
        spoil(world)
        began = time.monotonic()
        with ExitStack() as stack:
            ended = world.run(between=at(number, lambda s=stack: lock_if_free(world, s, table)))
            seconds = time.monotonic() - began
        assert_unharmed(world, ended, at_least=f"before statement {number}:")
        assert seconds < LONGEST_WAIT_SECONDS, f"before statement {number}"


def lock_if_free(world: World, stack: ExitStack, table: str) -> None:
    session = stack.enter_context(world.billing.session())
    try:
        session.connection.execute(f"lock table {table} in access exclusive mode nowait".encode())
    except psycopg.errors.LockNotAvailable:  # the run itself reads it now
        session.connection.rollback()


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters"])
def test_row_level_security_that_comes_and_goes_between_statements_changes_no_right_counter(
    world: World, table: str
) -> None:
    """Our role owns nothing, so rows are hidden from it while it is on: a run is refused, or sees them all."""
    switch = "alter table {table} {turn} row level security"
    with role(world.billing) as url:
        for number in moments(world, every=31):
            spoil(world)
            turn_on = at(number, lambda: impatient(world.billing, switch.format(table=table, turn="enable")))
            for turn_off in (None, number + 2):

                def toggle(n: int, turn_on: Callable[[int], None] = turn_on, turn_off: int | None = turn_off) -> None:
                    turn_on(n)
                    if n == turn_off:
                        impatient(world.billing, switch.format(table=table, turn="disable"))

                ended = world.run(between=toggle, url=url)
                world.billing.query(switch.format(table=table, turn="disable"))
                context = f"on before statement {number}, off {turn_off}:"
                if ended.outcome in ("blocked", "failed"):
                    assert set(world.billing.counters().values()) <= {5, 12}, f"{context} {ended}"
                    assert {after for _, _, after in world.repaired()} <= {12}, f"{context} {ended}"
                else:
                    assert_unharmed(world, ended, at_least=context)
        assert_fixes_itself(world)


@pytest.mark.parametrize(
    ("table", "narrow", "restore"),
    [
        (
            "billing_usage_events",
            "create policy narrow on {table} as restrictive using (false)",
            "drop policy if exists narrow on {table}",
        ),
        (
            "billing_usage_counters",
            "alter policy sees_all on {table} using (false)",
            "alter policy sees_all on {table} using (true)",
        ),
    ],
    ids=["restrictive", "altered"],
)
def test_a_policy_that_is_narrowed_between_statements_changes_no_right_counter(
    world: World, table: str, narrow: str, restore: str
) -> None:
    """Our role sees every row by a policy until then: a run is refused, or sees them all."""
    with role(world.billing) as url:
        name = urlsplit(url).username
        for one in ("billing_usage_events", "billing_usage_counters", "billing_subscriptions"):
            world.billing.query(f"alter table {one} enable row level security")
            world.billing.query(f"create policy sees_all on {one} to {name} using (true) with check (true)")
        for number in moments(world, every=31):
            spoil(world)
            act = at(number, lambda: impatient(world.billing, narrow.format(table=table)))

            ended = world.run(between=act, url=url)

            impatient(world.billing, restore.format(table=table))
            context = f"before statement {number}:"
            if ended.outcome in ("blocked", "failed"):
                assert set(world.billing.counters().values()) <= {5, 12}, f"{context} {ended}"
                assert {after for _, _, after in world.repaired()} <= {12}, f"{context} {ended}"
            else:
                assert_unharmed(world, ended, at_least=context)
        assert_fixes_itself(world)
        for one in ("billing_usage_events", "billing_usage_counters", "billing_subscriptions"):
            world.billing.query(f"drop policy sees_all on {one}")
            world.billing.query(f"alter table {one} disable row level security")


@pytest.fixture(params=[TICK, BARE_LOG])
def partitioned(request: pytest.FixtureRequest, worlds: Callable[[str], World]) -> World:
    """The same on a partitioned log, half of each customer's events in either partition."""
    world = worlds(request.param)
    world.billing.connection.execute(PARTITIONED.encode())
    if request.param != BARE_LOG:
        install_increments(world.billing.url)
    for created_at in ("2025-05-10", "2025-05-20"):
        for customer in (*RIGHT, *WRONG):
            world.billing.add_event(customer, 6, created_at=created_at)
    for customer in (*RIGHT, *WRONG):
        world.billing.add_counter(customer, 12)
    world.settle_in()
    return world


DETACH = "alter table billing_usage_events detach partition billing_usage_events_late"
ATTACH = """
    alter table billing_usage_events attach partition billing_usage_events_late
        for values from ('2025-05-15 00:00Z') to (maxvalue)
"""


def test_a_partition_that_is_detached_and_attached_again_in_one_transaction_changes_no_right_counter(
    partitioned: World,
) -> None:
    for number in moments(partitioned, every=13):
        spoil(partitioned)
        ended = partitioned.run(between=at(number, lambda: impatient(partitioned.billing, f"{DETACH}; {ATTACH}")))
        assert_unharmed(partitioned, ended, at_least=f"before statement {number}:")


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(1, id="attached at once"),
        pytest.param(6, id="attached later"),
        pytest.param(None, id="attached after the run"),
    ],
)
def test_a_partition_that_is_away_for_some_statements_lowers_no_counter(partitioned: World, later: int | None) -> None:
    """A log that shrinks is no reason to lower a counter; whether the run is clean is for it to say."""
    for number in moments(partitioned, every=13):
        is_away = [False]

        def act(n: int, number: int = number, is_away: list[bool] = is_away) -> None:
            if n == number:
                is_away[0] = impatient(partitioned.billing, DETACH)
            elif later is not None and n >= number + later and is_away[0]:
                is_away[0] = not impatient(partitioned.billing, ATTACH)

        ended = partitioned.run(between=act, budgets=NONE_LEFT)
        if is_away[0]:
            partitioned.billing.query(ATTACH)
        context = f"detached before statement {number}: {ended}"
        assert set(partitioned.billing.counters().values()) == {12}, context
        assert partitioned.repaired() == [], context
    assert_fixes_itself(partitioned)


def test_a_partition_that_is_attached_together_with_its_increments_is_not_reported_as_drift(partitioned: World) -> None:
    """A partition is seen as soon as it is attached, by an older snapshot too, which sees no increment of then."""
    arrive = f"{ATTACH}; update billing_usage_counters set usage_count = 12"
    leave = f"{DETACH}; update billing_usage_counters set usage_count = 6"
    is_away = [False]

    def attach() -> None:
        is_away[0] = not impatient(partitioned.billing, arrive)

    for number in moments(partitioned, every=10):
        if not is_away[0]:
            partitioned.billing.query(leave)
            is_away[0] = True
        ended = partitioned.run(between=at(number, attach), approve=APPROVED)
        drifted = partitioned.billing.query("select * from recon.counter_drift where run_id = %s", ended.run_id)
        context = f"before statement {number}: {ended}"
        assert drifted == [], context
        assert ended.outcome == "clean" or PUT_OFF in ended.error, context
    assert partitioned.repaired() == []
