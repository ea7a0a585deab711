"""The model itself notices what must never be: it is held to each of its rules without a database."""

from collections.abc import Sequence

import pytest

from recon_pipeline_tests.reconciliation.billing import JUNE, MAY
from recon_pipeline_tests.simulation.model import Added, Event, Inserted, Key, Model, Poisoned, Repair, ViolationError
from recon_pipeline_tests.simulation.pipeline import Statement

KEY: Key = ("a", *MAY)


def event(number: int, quantity: int | None = 5, *, transaction: int = 10, request_id: str = "") -> Inserted:
    return Inserted(str(number), Event(request_id or f"r{number}", KEY, quantity, (number,), transaction))


def used(quantity: int, counted: int, *, settles: bool = False) -> Model:
    """One event, and what the counter says."""
    model = Model(settles)
    model.commit([event(1, quantity), Added(KEY, counted)])
    model.step = 1
    return model


def repair(
    model: Model, before: int | None, after: int, *, since: int = 1, counters: dict[Key, int] | None = None
) -> None:
    counters = {**model.counters, KEY: after} if counters is None else counters
    model.commit_of_product(counters, [Repair("run", KEY, before, after)], since, since, is_blocked=False)


def test_a_repair_of_a_wrong_counter_to_what_the_log_says_is_right() -> None:
    model = used(5, 3)
    repair(model, 3, 5)

    assert model.drift() == {}


def test_a_right_counter_may_not_be_changed_even_to_what_else_would_be_right() -> None:
    model = used(5, 3, settles=True)  # nothing is settled: 0 to 5 are right
    with pytest.raises(ViolationError, match="changed a counter that was right"):
        repair(model, 3, 5)


@pytest.mark.parametrize("after", [4, 6])
def test_a_repair_beside_what_the_log_says_is_wrong(after: int) -> None:
    with pytest.raises(ViolationError, match="is wrong: the log says 5 to 5"):
        repair(used(5, 3), 3, after)


def test_what_the_log_said_while_the_transaction_lasted_will_do_and_what_it_said_before_will_not() -> None:
    model = used(5, 3)
    model.step = 2
    model.commit([event(2, 4)])  # without an increment

    repair(model, 3, 5, since=2)
    model.step, model.counters[KEY] = 9, 3
    with pytest.raises(ViolationError, match="is wrong"):
        repair(model, 3, 5, since=8)


def test_a_change_without_a_row_in_the_ledger_is_reported() -> None:
    model = used(5, 3)
    with pytest.raises(ViolationError, match="counters and ledger part"):
        model.commit_of_product({KEY: 5}, [], 1, 1, is_blocked=False)


@pytest.mark.parametrize(("old_horizon", "settled"), [(10, 0), (11, 5)])
def test_an_event_is_settled_once_its_transaction_had_ended_at_a_horizon_that_is_old_enough(
    old_horizon: int, settled: int
) -> None:
    model = used(5, 3, settles=True)
    model.grow_older(old_horizon)

    assert (model.sum_of(KEY).settled, model.sum_of(KEY).visible) == (settled, 5)


@pytest.mark.parametrize(("quantities", "visible"), [((5, 7), 5), ((-1, 7), -1), ((0, -1), 0), ((None, 7), 7)])
def test_of_one_request_id_the_first_valid_event_counts(quantities: Sequence[int | None], visible: int) -> None:
    model = Model(settles=False)
    model.commit([event(number, quantity, request_id="r") for number, quantity in enumerate(quantities)])

    assert model.sum_of(KEY).visible == visible


@pytest.mark.parametrize(("counted", "is_right"), [(6, False), (7, True), (16, True), (17, False)])
def test_while_usage_and_credits_are_on_their_way_a_counter_may_have_any_of_them(counted: int, is_right: bool) -> None:
    model = Model(settles=True)
    model.commit([event(1, 12, transaction=1), event(2, 4), event(3, -5), Added(KEY, counted)])
    model.grow_older(2)

    assert (model.drift() == {}) == is_right


def test_of_a_poisoned_key_nothing_is_said() -> None:
    model = used(5, 3)
    model.commit([Poisoned(KEY)])

    assert model.drift() == {}
    repair(model, 3, 99, counters={KEY: 99})


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("/* recon:lock_tables */ lock table billing_usage_events in access share mode", False),
        ("-- Settings.\nset local timezone = 'UTC'; set local jit = off", False),
        ("/* recon:read_run */ select 1", True),
    ],
)
def test_a_snapshot_is_taken_by_the_first_statement_that_is_no_setting_and_no_lock(text: str, takes: bool) -> None:
    assert Statement("named", text).takes_snapshot is takes


@pytest.mark.parametrize(("counted", "is_doubtful"), [(12, True), (3, False)])
def test_two_periods_of_one_start_are_doubtful_if_one_has_too_much_and_the_other_too_little(
    counted: int, is_doubtful: bool
) -> None:
    shorter: Key = (KEY[0], KEY[1], JUNE[0] - (JUNE[0] - KEY[1]) / 2)
    model = used(5, counted)
    model.commit([Inserted("2", Event("r2", shorter, 6, (2,), 10))])

    assert {one.is_doubtful for one in model.drift().values()} == {is_doubtful}
