"""Credits hide nothing that left the log, and what credits left it raises no counter, until a person approves it."""

from collections.abc import Callable

import pytest

from recon_pipeline_tests.adversary.world import AUDIT, BARE_LOG, NONE_LEFT, TICK, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.simulation.pipeline import Ended

CUSTOMERS = customers(4)
CREDITED, OTHER = CUSTOMERS[1], CUSTOMERS[2]
ALLOWED = """
    alter table billing_usage_events drop constraint billing_usage_events_quantity_check;
    alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check
"""
FAILED = ("not_clean", ["events_stay_in_the_log", "counters_match_event_sums"])
ONE_EVENT = "id = (select id from billing_usage_events where gateway_customer_id = %s and quantity = 4 limit 1)"


@pytest.fixture
def filled(world: World) -> World:
    return filled_world(world)


def filled_world(world: World) -> World:
    """Counters of 12, of three events each, that are right; both tables take negative numbers."""
    world.billing.connection.execute(ALLOWED.encode())
    world.fill(CUSTOMERS)
    world.settle_in()
    return world


@pytest.fixture
def credited(filled: World) -> World:
    """One customer has been given a credit of 20, which runs have counted: its counter is -8."""
    give_credit(filled, 20)
    assert run(filled).outcome == "clean"
    return filled


def run(world: World, *, approve: str = "") -> Ended:
    return world.run(refuses_negative=False, budgets=NONE_LEFT, approve=approve)


def ended(world: World) -> tuple[str, list[str]]:
    record = run(world)
    return record.outcome, record.failed_checks


def give_credit(world: World, units: int, *, customer: str = CREDITED) -> None:
    """An event and the decrement of its counter."""
    world.billing.add_event(customer, -units)
    world.billing.query(
        "update billing_usage_counters set usage_count = usage_count - %s where gateway_customer_id = %s",
        units,
        customer,
    )


def take_credit(world: World) -> None:
    """Delete the credit, as a purge does that begins with the oldest events or with the smallest."""
    world.billing.query("delete from billing_usage_events where gateway_customer_id = %s and quantity < 0", CREDITED)


def errors(world: World) -> set[str]:
    rows = world.billing.query("select error from recon.counter_drift where outcome = 'doubtful'")
    return {row[0] for row in rows}


def test_an_update_that_makes_usage_a_credit_lowers_no_counter(filled: World) -> None:
    filled.billing.query(f"update billing_usage_events set quantity = -100 where {ONE_EVENT}", CREDITED)

    for _ in range(2):
        assert ended(filled) == FAILED
        assert filled.billing.counter(CREDITED) == 12
    assert run(filled, approve="TICKET-1").outcome == "clean"
    assert filled.repaired() == [(CREDITED, 12, -92)]


def test_an_update_that_makes_a_credit_larger_lowers_no_counter(credited: World) -> None:
    credited.billing.query("update billing_usage_events set quantity = -500 where quantity < 0")

    for _ in range(2):
        assert ended(credited) == FAILED
        assert credited.billing.counter(CREDITED) == -8


@pytest.mark.parametrize("before", [0, -1])
def test_a_new_credit_hides_no_event_that_an_update_made_a_larger_one(
    worlds: Callable[[str], World], before: int
) -> None:
    world = filled_world(worlds(TICK))
    give_credit(world, -before)
    assert ended(world) == ("clean", [])
    world.billing.query("update billing_usage_events set quantity = -100 where quantity = %s", before)
    give_credit(world, 5)

    assert ended(world) == FAILED
    assert world.billing.counter(CREDITED) == 12 + before - 5


@pytest.mark.parametrize("change", ["delete from billing_usage_events", "update billing_usage_events set quantity = 1"])
def test_a_credit_hides_no_usage_that_left_the_log_beside_it(filled: World, change: str) -> None:
    """Also where a run sees only what the whole key adds up to: in full mode, and of a key with changed events."""
    filled.billing.record(CREDITED, 1_000)
    assert ended(filled) == ("clean", [])
    filled.billing.query(f"{change} where quantity = 1000")
    give_credit(filled, 1)

    for _ in range(2):
        assert ended(filled) == FAILED
        assert filled.billing.counter(CREDITED) == 1_011


def test_credits_that_left_the_log_raise_no_counter_until_a_person_approves_it(credited: World) -> None:
    take_credit(credited)
    credited.billing.set_counter(OTHER, 3)

    for _ in range(2):
        assert ended(credited) == FAILED
        assert credited.billing.counter(CREDITED) == -8
    assert errors(credited) == {"credits of 20 units left the log since this counter last matched"}
    assert credited.repaired() == [(OTHER, 3, 12)]

    assert run(credited, approve="TICKET-1").outcome == "clean"
    assert credited.repaired() == [(OTHER, 3, 12), (CREDITED, -8, 12)]


@pytest.mark.parametrize("mode", [TICK, AUDIT])
@pytest.mark.parametrize("quantity", [-3, 0, 5])
def test_an_update_that_makes_a_credit_smaller_or_usage_is_followed_at_once(
    worlds: Callable[[str], World], mode: str, quantity: int
) -> None:
    """It waited for an approval, as a credit that left the log: the event is there, and its sum has risen."""
    world = filled_world(worlds(mode))
    give_credit(world, 20)
    assert ended(world) == ("clean", [])
    world.billing.query("update billing_usage_events set quantity = %s where quantity = -20", quantity)

    assert ended(world) == ("clean", [])
    assert world.repaired() == [(CREDITED, -8, 12 + quantity)]
    assert world.billing.value("select count(*) from recon.open_key") == 0


@pytest.mark.parametrize("mode", [TICK, AUDIT])
def test_so_is_one_of_a_credit_that_no_sum_has_counted_yet(worlds: Callable[[str], World], mode: str) -> None:
    world = filled_world(worlds(mode))
    with world.billing.session() as stuck:
        stuck.query("create table stuck (n integer)")
        give_credit(world, 20)
        assert ended(world) == ("clean", [])
        world.billing.query("update billing_usage_events set quantity = 5 where quantity = -20")

        assert ended(world) == ("clean", [])
    assert world.repaired() == [(CREDITED, -8, 17)]


def test_an_update_hides_no_credit_that_was_deleted_beside_it(credited: World) -> None:
    give_credit(credited, 7)
    assert ended(credited) == ("clean", [])
    credited.billing.query("update billing_usage_events set quantity = 5 where quantity = -7")
    credited.billing.query("delete from billing_usage_events where quantity = -20")

    for _ in range(2):
        assert ended(credited) == FAILED
        assert credited.billing.counter(CREDITED) == -15


def test_in_full_mode_new_usage_hides_no_credit_that_was_deleted(worlds: Callable[[str], World]) -> None:
    """Sums of two moments do not tell an update from a deletion beside a new event, so both wait for an approval."""
    world = filled_world(worlds(BARE_LOG))
    give_credit(world, 20)
    assert ended(world) == ("clean", [])
    take_credit(world)
    world.billing.record(CREDITED, 5)

    assert ended(world) == FAILED
    assert world.billing.counter(CREDITED) == -3


def test_credits_that_left_the_log_bring_no_counter_back(credited: World) -> None:
    take_credit(credited)
    credited.billing.query("delete from billing_usage_counters where gateway_customer_id = %s", CREDITED)

    assert ended(credited) == FAILED
    assert credited.billing.counter(CREDITED) is None


def test_credits_that_are_all_that_a_key_had_raise_no_counter(filled: World) -> None:
    filled.billing.add_event("newcomer", -5)
    filled.billing.add_counter("newcomer", -5)
    assert ended(filled) == ("clean", [])
    filled.billing.query("delete from billing_usage_events where gateway_customer_id = 'newcomer'")

    for _ in range(2):
        assert ended(filled) == FAILED
        assert filled.billing.counter("newcomer") == -5


def test_credits_that_left_are_forgotten_once_the_counter_matches(credited: World) -> None:
    take_credit(credited)
    assert ended(credited) == FAILED
    credited.billing.set_counter(CREDITED, 12)
    assert ended(credited) == ("clean", [])

    credited.billing.set_counter(CREDITED, 5)
    assert ended(credited) == ("clean", [])
    assert credited.repaired() == [(CREDITED, 5, 12)]


def test_what_was_shown_to_be_raised_is_not_approved_to_be_lowered(credited: World) -> None:
    take_credit(credited)
    assert ended(credited) == FAILED
    credited.billing.set_counter(CREDITED, 12)
    credited.billing.query(f"update billing_usage_events set quantity = 1 where {ONE_EVENT}", CREDITED)

    assert run(credited, approve="TICKET-1").outcome == "not_clean"
    assert credited.billing.counter(CREDITED) == 12


def test_a_credit_whose_decrement_was_lost_lowers_its_counter_while_a_transaction_is_open(filled: World) -> None:
    """It is newer than the horizon, so that the stored sum is more than the key has."""
    with filled.billing.session() as stuck:
        stuck.query("create table stuck (n integer)")
        filled.billing.add_event(CREDITED, -5)

        assert ended(filled) == ("clean", [])

    assert filled.repaired() == [(CREDITED, 12, 7)]


def test_deleted_events_of_no_units_are_no_reason_to_leave_a_counter_alone(filled: World) -> None:
    filled.billing.add_event(CREDITED, 0)
    assert ended(filled) == ("clean", [])
    filled.billing.query("delete from billing_usage_events where quantity = 0")
    filled.billing.set_counter(CREDITED, 15)

    assert ended(filled) == ("clean", [])
    assert filled.repaired() == [(CREDITED, 15, 12)]


def test_a_rollup_that_keeps_the_sum_is_no_reason_to_leave_a_counter_alone(worlds: Callable[[str], World]) -> None:
    """Seen by the sums of keys alone, where the log tells nothing else."""
    world = filled_world(worlds(BARE_LOG))
    world.billing.set_counter(CREDITED, 15)
    world.billing.query("delete from billing_usage_events where gateway_customer_id = %s", CREDITED)
    world.billing.add_event(CREDITED, 12)

    assert ended(world) == ("clean", [])
    assert world.repaired() == [(CREDITED, 15, 12)]


def test_credits_that_come_need_nothing(filled: World) -> None:
    for units in (2, 3, 20):
        give_credit(filled, units)
        assert ended(filled) == ("clean", [])
    filled.billing.query("delete from billing_usage_events where quantity = -3")
    filled.billing.add_event(CREDITED, -3)
    assert ended(filled) == ("clean", [])
    assert filled.billing.value("select count(*) from recon.open_key") == 0
