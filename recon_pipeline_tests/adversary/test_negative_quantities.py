"""Events of negative quantity are credits where a person says so; else a drifted counter that has one is left alone."""

import pytest

from recon_pipeline_tests.adversary.test_settling import HALF_AN_HOUR, an_hour_passes
from recon_pipeline_tests.adversary.world import BARE_LOG, NONE_LEFT, World
from recon_pipeline_tests.reconciliation.billing import customers
from recon_pipeline_tests.reconciliation.conftest import install_increments

CUSTOMERS = customers(4)
CREDITED, OTHER = CUSTOMERS[1], CUSTOMERS[2]
ALLOWED = "alter table billing_usage_events drop constraint billing_usage_events_quantity_check"
REFUSED = "has 1 events of negative quantity"


@pytest.fixture
def credited(world: World) -> World:
    """Counters of 12 that are right; one customer has then been given a credit of 5, and its counter with it."""
    world.begin_settled(CUSTOMERS, tables=ALLOWED)
    world.billing.add_event(CREDITED, -5)
    world.billing.set_counter(CREDITED, 7)
    return world


@pytest.fixture
def repeating(world: World) -> World:
    """A log that admits repetitions and fractions; counters of 12 that are right."""
    world.billing.query(ALLOWED)
    world.billing.query("alter table billing_usage_events alter quantity type numeric")
    world.billing.query(
        "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key"
    )
    world.billing.query("create index on billing_usage_events (gateway_name, request_id)")
    if world.mode != BARE_LOG:
        install_increments(world.billing.url)
    world.fill(CUSTOMERS)
    world.settle_in()
    return world


def reported(world: World) -> list[tuple[str, str, str]]:
    rows = world.billing.query(
        "select gateway_customer_id, outcome, error from recon.counter_drift where error is not null"
    )
    return [tuple(row) for row in rows]


def test_a_credit_that_counter_and_log_agree_on_is_not_taken_away(credited: World) -> None:
    for _ in range(2):
        ended = credited.run()
        assert (ended.outcome, ended.mismatch_count) == ("clean", 0)

    assert credited.billing.counter(CREDITED) == 7
    assert credited.repaired() == []


@pytest.mark.parametrize("counted", [6, 8, 12])
def test_a_drifted_counter_with_a_credit_is_reported_and_neither_raised_nor_lowered(
    credited: World, counted: int
) -> None:
    credited.billing.set_counter(CREDITED, counted)
    credited.billing.set_counter(OTHER, 3)

    for _ in range(2):
        ended = credited.run()
        assert (ended.outcome, ended.mismatch_count) == ("not_clean", 1)
        assert "quantities_are_not_negative" in ended.failed_checks

    assert credited.billing.counter(CREDITED) == counted
    assert credited.repaired() == [(OTHER, 3, 12)]
    assert {(customer, outcome) for customer, outcome, _ in reported(credited)} == {(CREDITED, "doubtful")}
    assert all(REFUSED in error and "RECON_NEGATIVE_QUANTITIES=sum" in error for *_, error in reported(credited))


def test_an_event_of_no_units_is_valid_and_changes_no_sum(world: World) -> None:
    world.begin_settled(CUSTOMERS, tables=ALLOWED)
    world.billing.add_event(CREDITED, 0)
    world.billing.add_event("of no units alone", 0)

    ended = world.run()

    assert (ended.outcome, ended.failed_checks) == ("clean", [])
    assert world.repaired() == []
    assert world.billing.counter("of no units alone") is None


@pytest.fixture
def settled(ticking: World) -> World:
    """Counters of 12 that are right and settled; one customer has then had events of 4 and of -5, just now."""
    ticking.billing.query(ALLOWED)
    ticking.fill(CUSTOMERS)
    for _ in range(3):
        assert run_settling(ticking) == "clean"
        an_hour_passes(ticking)
    ticking.billing.add_event(CREDITED, 4)
    ticking.billing.add_event(CREDITED, -5)
    return ticking


def run_settling(world: World) -> str:
    return world.run(settle_seconds=HALF_AN_HOUR, refuses_negative=False).outcome


@pytest.mark.parametrize(("counted", "left"), [(6, 7), (7, 7), (11, 11), (12, 12), (16, 16), (17, 16)])
def test_while_usage_and_credits_are_in_flight_a_counter_may_have_any_of_their_increments(
    settled: World, counted: int, left: int
) -> None:
    settled.billing.set_counter(CREDITED, counted)

    for _ in range(2):
        assert run_settling(settled) == "clean"

    assert settled.billing.counter(CREDITED) == left
    assert settled.billing.value("select coalesce(sum(aggregates_differing), 0) from recon.reconciliation_run") == 0
    for _ in range(3):
        an_hour_passes(settled)
        assert run_settling(settled) == "clean"
    assert settled.billing.counter(CREDITED) == 11


def test_a_missing_counter_of_a_credit_in_flight_is_not_made(settled: World) -> None:
    settled.billing.add_event("newcomer", -5)

    assert run_settling(settled) == "clean"

    assert settled.billing.counter("newcomer") is None


@pytest.mark.parametrize("counted", [6, 12])
def test_declared_credits_are_summed_and_no_check_warns_of_them(credited: World, counted: int) -> None:
    credited.billing.set_counter(CREDITED, counted)

    for _ in range(2):
        ended = credited.run(refuses_negative=False)
        assert (ended.outcome, ended.failed_checks) == ("clean", [])

    assert credited.repaired() == [(CREDITED, counted, 7)]


def test_a_sum_that_the_counters_table_refuses_fails_with_its_reason_and_all_others_are_repaired(
    credited: World,
) -> None:
    """Refunds are more than was used, and the application keeps the counter at 0, since a check lets it be no less."""
    credited.billing.add_event(CREDITED, -20)
    credited.billing.set_counter(CREDITED, 0)
    credited.billing.set_counter(OTHER, 3)

    for _ in range(2):
        ended = credited.run(refuses_negative=False)
        assert (ended.outcome, ended.mismatch_count) == ("not_clean", 1)

    assert credited.billing.counter(CREDITED) == 0
    assert credited.repaired() == [(OTHER, 3, 12)]
    ((customer, outcome, why),) = set(reported(credited))
    assert (customer, outcome) == (CREDITED, "failed")
    assert 'violates check constraint "billing_usage_counters_usage_count_check"' in why


def test_a_declared_credit_that_lowers_a_sum_is_no_event_that_left_the_log(credited: World) -> None:
    """Also where an update makes a run sum the whole key anew, so that it sees only that the sum fell."""
    credited.billing.set_counter(CREDITED, 12)
    credited.billing.query(
        "update billing_usage_events set quantity = quantity + 1 "
        "where id = (select id from billing_usage_events where gateway_customer_id = %s and quantity > 0 limit 1)",
        CREDITED,
    )

    ended = credited.run(refuses_negative=False, budgets=NONE_LEFT)

    assert (ended.outcome, ended.failed_checks) == ("clean", [])
    assert credited.repaired() == [(CREDITED, 12, 8)]


@pytest.mark.parametrize("refuses_negative", [True, False])
def test_a_refund_that_was_given_the_id_of_its_usage_is_no_repetition_and_is_not_taken_away(
    repeating: World, refuses_negative: bool
) -> None:
    (used,) = repeating.billing.query(
        "select request_id from billing_usage_events where gateway_customer_id = %s limit 1", CREDITED
    )
    repeating.billing.add_event(CREDITED, -4, request_id=used.request_id)
    repeating.billing.set_counter(CREDITED, 8)
    repeating.billing.set_counter(OTHER, 3)

    ended = repeating.run(refuses_negative=refuses_negative)

    assert (ended.outcome, "event_identity_is_known" in ended.failed_checks) == ("not_clean", True)
    assert repeating.billing.counter(CREDITED) == 8
    assert repeating.repaired() == [(OTHER, 3, 12)]


@pytest.mark.parametrize("quantity", ["Infinity", "-Infinity", "NaN"])
def test_an_event_that_never_counts_makes_no_key_doubtful(repeating: World, quantity: str) -> None:
    (used,) = repeating.billing.query(
        "select request_id from billing_usage_events where gateway_customer_id = %s limit 1", CREDITED
    )
    repeating.billing.add_event(OTHER, quantity, request_id=used.request_id)
    repeating.billing.set_counter(CREDITED, 5)

    repeating.run()

    assert repeating.repaired() == [(CREDITED, 5, 12)]
