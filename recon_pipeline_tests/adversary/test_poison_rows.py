"""One poison row stops one key: whatever a single row holds, every other drifted key is repaired, and the run says so.

Rows come as imports and other programs leave them, in tables without the constraints that would keep them out.
"""

import random
import string
from dataclasses import dataclass

import pytest

from recon_pipeline_tests.adversary.world import APPROVED, Application, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.pipeline import Ended

OTHERS = customers(8, prefix="other")
LOOSE = """
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_events drop constraint billing_usage_events_check;
    alter table billing_usage_events alter period_start drop not null;
    alter table billing_usage_events alter period_end drop not null;
    alter table billing_usage_events alter gateway_customer_id drop not null;
    alter table billing_usage_events alter usage_type drop not null;
    alter table billing_usage_counters alter gateway_customer_id drop not null;
    alter table billing_usage_counters alter period_start drop not null;
    alter table billing_usage_counters alter period_end drop not null;
    alter table billing_usage_counters alter usage_count drop not null;
"""
NUMERIC = "alter table billing_usage_events alter quantity type numeric;"
MAY = "'2025-05-01 00:00Z', '2025-06-01 00:00Z'"


def random_id(length: int) -> str:
    """Nothing that a table or an index could compress."""
    choices = random.Random(length)  # noqa: S311 - not a secret
    return "".join(choices.choices(string.ascii_letters + string.digits, k=length))


def event(customer: str, quantity: str = "7", period: str = MAY) -> str:
    return f"""
        insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, quantity,
            period_start, period_end, event_timestamp)
        values ('stripe', {customer}, 'remote_commands', gen_random_uuid()::text, {quantity}, {period},
            '2025-05-02 00:00Z');
    """


def counter(customer: str, usage_count: str, period: str = MAY) -> str:
    return f"""
        insert into billing_usage_counters
            (gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count)
        values ('stripe', {customer}, 'remote_commands', {period}, {usage_count});
    """


@dataclass(frozen=True)
class Poison:
    """Rows that go into the tables.

    Attributes:
        rows: The SQL that puts them there.
        cannot_be_repaired: A key of them differs and stays so: the run is not clean. None: the product may say.
        before: What is done to the tables first.
    """

    rows: str
    cannot_be_repaired: bool | None = False
    before: str = ""


LONG, LONGEST, MEDIUM = random_id(2_600), random_id(2_660), random_id(1_100)
POISONS = {
    "an event without an end": Poison(event("'poison'", period="'2025-05-01 00:00Z', null")),
    "an event without a start": Poison(event("'poison'", period="null, '2025-06-01 00:00Z'")),
    "an event without a period": Poison(event("'poison'", period="null, null")),
    "an event without a customer": Poison(event("null")),
    "an event whose customer id no index of counters can hold": Poison(event(f"'{LONGEST}'")),
    "a counted event whose customer id is very long": Poison(event(f"'{LONG}'") + counter(f"'{LONG}'", "7")),
    "a counted event whose customer id is long": Poison(event(f"'{MEDIUM}'") + counter(f"'{MEDIUM}'", "7")),
    "quantities of 131,001 digits": Poison(
        2 * event("'poison'", "1e131000"), before=NUMERIC
    ),
    "quantities whose sum no numeric can hold": Poison(
        2 * event("'poison'", "9e131071"), before=NUMERIC
    ),
    "a quantity that is no number": Poison(event("'poison'", "'NaN'"), before=NUMERIC),
    "a quantity without end": Poison(event("'poison'", "'infinity'"), before=NUMERIC),
    "a counter without a customer": Poison(counter("null", "7")),
    "a counter without a start": Poison(counter("'poison'", "7", "null, '2025-06-01 00:00Z'")),
    "a counter without an end": Poison(counter("'poison'", "7", "'2025-05-01 00:00Z', null")),
    "a counter without a count": Poison(event("'poison'") + counter("'poison'", "null"), cannot_be_repaired=None),
    "a subscription that never ends": Poison(
        "insert into billing_subscriptions (gateway_name, gateway_customer_id, status, current_period_start, "
        "current_period_end) values ('stripe', 'other_0001', 'active', '2025-05-01 00:00Z', 'infinity')"
    ),
    "a subscription that has always been": Poison(
        "insert into billing_subscriptions (gateway_name, gateway_customer_id, status, current_period_start, "
        "current_period_end) values ('stripe', 'other_0001', 'active', '-infinity', '2025-06-01 00:00Z')"
    ),
    "a counted period that never ends": Poison(
        event("'poison'", period="'2025-05-01 00:00Z', 'infinity'")
        + counter("'poison'", "7", "'2025-05-01 00:00Z', 'infinity'")
    ),
    "an uncounted period that never ends": Poison(event("'poison'", period="'2025-05-01 00:00Z', 'infinity'")),
    "a period before Christ": Poison(
        event("'poison'", period="'0044-03-15 BC', '0044-04-15 BC'")
        + counter("'poison'", "7", "'0044-03-15 BC', '0044-04-15 BC'")
    ),
    "a period from before Christ until now": Poison(event("'poison'", period="'0044-03-15 BC', '2025-06-01 00:00Z'")),
    "a period of the year 200,000": Poison(
        event("'poison'", period="'2025-05-01 00:00Z', '200000-01-01 00:00Z'")
        + counter("'poison'", "3", "'2025-05-01 00:00Z', '200000-01-01 00:00Z'")
    ),
}  # fmt: skip
UNSAID = {name for name in POISONS if name.startswith(("a subscription", "a counted", "an uncounted"))}
UNSAID |= {"a period of the year 200,000"}
"""What is odd and yet in order, or was repaired: nothing has to be said of it."""


@pytest.fixture
def loose(ticking: World) -> World:
    """Eight customers who have used 12 and are counted so, and a right one whose id is long."""
    world = ticking
    world.begin_settled([*OTHERS, "innocent", MEDIUM[::-1]], tables=LOOSE)
    return world


def is_clean(poison: Poison) -> bool | None:
    return None if poison.cannot_be_repaired is None else not poison.cannot_be_repaired


def let_drift(billing: Application) -> None:
    billing.query("update billing_usage_counters set usage_count = 5 where gateway_customer_id like 'other%%'")


def other_counters(world: World) -> dict[str, int]:
    return dict(
        world.billing.query(
            "select gateway_customer_id, usage_count from billing_usage_counters "
            "where gateway_customer_id = any(%s) and period_end = '2025-06-01 00:00Z'",
            [*OTHERS, "innocent", MEDIUM[::-1]],
        )
    )


def assert_others_are_repaired(world: World, ended: Ended, *, is_clean: bool | None) -> None:
    assert other_counters(world) == dict.fromkeys([*OTHERS, "innocent", MEDIUM[::-1]], 12), ended
    assert ended.outcome in {True: ("clean",), False: ("not_clean",), None: ("clean", "not_clean")}[is_clean], ended
    zeroed = [row for row in world.repaired() if row[2] == 0]
    assert zeroed == []


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_row_keeps_no_other_key_from_being_repaired(loose: World, name: str) -> None:
    poison = POISONS[name]
    if poison.before:
        loose.billing.connection.execute(poison.before.encode())
    loose.billing.connection.execute(poison.rows.encode())
    let_drift(loose.billing)

    ended = loose.run(approve=APPROVED)

    assert_others_are_repaired(loose, ended, is_clean=is_clean(poison))
    if name not in UNSAID:
        assert ended.failed_checks, "nothing was said of it"


@pytest.mark.parametrize("name", POISONS)
def test_a_poison_row_that_comes_before_the_first_run_keeps_no_other_key_from_being_repaired(
    ticking: World, name: str
) -> None:
    poison, world = POISONS[name], ticking
    world.begin_settled([*OTHERS, "innocent", MEDIUM[::-1]], runs=0, tables=LOOSE + poison.before)
    world.billing.connection.execute(poison.rows.encode())
    world.run(approve=APPROVED)
    let_drift(world.billing)

    ended = [world.run(approve=APPROVED) for _ in range(2)][-1]

    assert_others_are_repaired(world, ended, is_clean=is_clean(poison))


def test_all_poison_rows_at_once_keep_no_other_key_from_being_repaired(loose: World) -> None:
    loose.billing.connection.execute(NUMERIC.encode())
    for number, poison in enumerate(POISONS.values()):
        loose.billing.connection.execute(poison.rows.replace("'poison'", f"'poison_{number}'").encode())
    let_drift(loose.billing)

    ended = loose.run(approve=APPROVED)

    assert_others_are_repaired(loose, ended, is_clean=False)
    assert ended.mismatch_count == 1
