"""Events that leave the log while a run is under way lower no counter: the next run knows what left."""

from collections.abc import Iterator
from typing import Any

import pytest

from recon_pipeline.store.sums import aggregates, modes
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.reconciliation.product import Run, new_run

CUSTOMERS = customers(4)
KEPT = dict.fromkeys(CUSTOMERS, 10)
SHRINKS = {
    "deleted": "delete from billing_usage_events where quantity = 4",
    "lowered": "update billing_usage_events set quantity = 1 where quantity = 4",
    "all deleted": "delete from billing_usage_events",
}
CREDITED = CUSTOMERS[1]
NO_CREDIT = "delete from billing_usage_events where quantity < 0"
EVERY_SHRINK = pytest.mark.parametrize("shrink", SHRINKS.values(), ids=SHRINKS)
"""TRUNCATE and DETACH wait until the transaction ends that reads: they come between two of them, as these do."""


@pytest.fixture(params=["incremental", "full"])
def filled(billing: Billing, request: pytest.FixtureRequest) -> Billing:
    """Everyone used 10, which runs have counted."""
    if request.param == "incremental":
        install_increments(billing.url)
    else:
        billing.query("alter table billing_usage_events drop column if exists ingest_xid")
    for customer in CUSTOMERS:
        billing.record(customer, 4)
        billing.record(customer, 6)
    tick(billing)
    return billing


def strict(billing: Billing) -> Run:
    return new_run(billing.url, max_events_left=0)


def tick(billing: Billing) -> Run:
    """A whole run; returns it."""
    run = strict(billing)
    sum_up(run)
    run.compare()
    run.repair()
    run.note_verified(run.verify())
    return run


def sum_up(run: Run) -> None:
    """What the step of the aggregates does in full mode; in the other, comparing does it."""
    with run.decision() as (connection, tables):
        if modes.choose(connection, tables).mode is Mode.FULL:
            aggregates.store_from_log(connection, run.question, tables)


def errors(billing: Billing) -> set[str]:
    return {row[0] for row in billing.query("select error from recon.counter_drift where outcome = 'doubtful'")}


@EVERY_SHRINK
def test_between_the_sums_and_the_comparison(filled: Billing, shrink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = strict(filled)
    sum_up(run)
    aggregate = Run.aggregate

    def then_shrink(self: Run) -> Any:
        done = aggregate(self)
        filled.query(shrink)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Run, "aggregate", then_shrink)
        run.compare()
    run.repair()
    assert filled.counters() == KEPT
    assert errors(filled) == {"its events changed lately: the next run that has summed them decides"}
    run.note_verified(run.verify())

    for _ in range(2):
        tick(filled)
        assert filled.counters() == KEPT
    assert all("since this counter last matched" in error for error in errors(filled) if "changed lately" not in error)
    assert len(errors(filled)) > 1


@EVERY_SHRINK
@pytest.mark.parametrize("moment", ["enter_chunk", "keys_to_repair", "lock_free_counters", "repair_locked_counters"])
def test_between_the_comparison_and_the_sum_under_the_lock(filled: Billing, shrink: str, moment: str) -> None:
    """The counters had drifted, and were to be lowered by what nobody used, and one to be raised."""
    filled.query("update billing_usage_counters set usage_count = 13")
    filled.set_counter(CUSTOMERS[0], 9)
    run = strict(filled)
    sum_up(run)
    run.compare()

    run.repair(before={moment: lambda: filled.query(shrink)})

    assert all(counted >= 9 for counted in filled.counters().values())
    run.note_verified(run.verify())
    for _ in range(2):
        tick(filled)
        assert all(counted >= 9 for counted in filled.counters().values())


def test_a_counter_that_was_to_be_raised_is_not_lowered_under_the_lock(filled: Billing) -> None:
    filled.set_counter(CUSTOMERS[0], 3)
    run = strict(filled)
    sum_up(run)
    run.compare()

    run.repair(before={"lock_free_counters": lambda: filled.set_counter(CUSTOMERS[0], 20)})

    assert filled.counters()[CUSTOMERS[0]] == 20
    tick(filled)
    assert filled.counters() == KEPT, "nothing left the log: the next run lowers it"


@pytest.fixture
def credited(filled: Billing) -> Billing:
    """One customer has had a credit of 20, which runs have counted: what is right is -10."""
    for table, column in (("events", "quantity"), ("counters", "usage_count")):
        name = f"billing_usage_{table}"
        filled.query(f"alter table {name} drop constraint if exists {name}_{column}_check")
    filled.add_event(CREDITED, -20)
    filled.set_counter(CREDITED, -10)
    tick(filled)
    assert filled.value("select sum(credit_units) from recon.usage_aggregate") == -20
    return filled


@pytest.mark.parametrize("counted", [-12, -7, 3])
def test_a_credit_that_leaves_before_the_comparison_raises_no_counter(
    credited: Billing, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    credited.set_counter(CREDITED, counted)
    run = new_run(credited.url, max_events_left=0, refuses_negative=False)
    sum_up(run)
    aggregate = Run.aggregate

    def then_shrink(self: Run) -> Any:
        done = aggregate(self)
        credited.query(NO_CREDIT)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Run, "aggregate", then_shrink)
        run.compare()
    run.repair()
    assert errors(credited) == {"its events changed lately: the next run that has summed them decides"}
    run.note_verified(run.verify())

    for _ in range(2):
        tick(credited)
        assert credited.counters()[CREDITED] == counted
    assert "credits of 20 units left the log since this counter last matched" in errors(credited)


@pytest.mark.parametrize("counted", [-12, -7, 3, None])
def test_a_credit_that_leaves_after_the_comparison_raises_no_counter(credited: Billing, counted: int | None) -> None:
    if counted is None:
        credited.query("delete from billing_usage_counters where gateway_customer_id = %s", CREDITED)
    else:
        credited.set_counter(CREDITED, counted)
    run = new_run(credited.url, max_events_left=0, refuses_negative=False)
    sum_up(run)
    run.compare()

    run.repair(before={"lock_free_counters": lambda: credited.query(NO_CREDIT)})

    assert credited.counters().get(CREDITED) == counted
    assert errors(credited) == {"its events changed lately: the next run that has summed them decides"}
    run.note_verified(run.verify())
    tick(credited)
    assert credited.counters().get(CREDITED) == counted


def test_what_another_run_has_found_to_have_left_is_not_lowered_by_one_that_comes_late(filled: Billing) -> None:
    """As one does that stood still inside a chunk, and goes on in a new session."""
    filled.set_counter(CUSTOMERS[1], 13)
    run = strict(filled)
    sum_up(run)
    run.compare()

    def meanwhile() -> None:
        filled.query("delete from billing_usage_events where quantity = 4")
        tick(filled)
        filled.record(CUSTOMERS[1], 9)

    run.repair(before={"enter_chunk": meanwhile})

    assert filled.counter(CUSTOMERS[1]) == 22
    run.note_verified(run.verify())
    tick(filled)
    assert filled.counter(CUSTOMERS[1]) == 22


@pytest.fixture
def incremental(incremental_billing: Billing) -> Iterator[Billing]:
    """Everyone used 10, which runs have counted; what is newer is above the horizon, since a transaction is open."""
    for table, column in (("events", "quantity"), ("counters", "usage_count")):
        name = f"billing_usage_{table}"
        incremental_billing.query(f"alter table {name} drop constraint if exists {name}_{column}_check")
    for customer in CUSTOMERS:
        incremental_billing.record(customer, 4)
        incremental_billing.record(customer, 6)
    tick(incremental_billing)
    with incremental_billing.session() as older:
        older.query("select pg_current_xact_id()")
        yield incremental_billing


@pytest.mark.parametrize("moment", ["enter_chunk", "keys_to_repair", "lock_free_counters"])
@pytest.mark.parametrize("leaves", [4, 5], ids=["that a sum has counted", "that no sum has counted"])
def test_new_usage_hides_nothing_that_left_after_the_comparison(incremental: Billing, leaves: int, moment: str) -> None:
    for customer in CUSTOMERS:
        incremental.record(customer, 5)
    incremental.query("update billing_usage_counters set usage_count = 16")
    run = strict(incremental)
    run.compare()

    def meanwhile() -> None:
        incremental.query("delete from billing_usage_events where quantity = %s", leaves)
        incremental.record(CUSTOMERS[1], 9)

    run.repair(before={moment: meanwhile})

    assert incremental.counter(CUSTOMERS[1]) == 25
    assert errors(incremental) == {"its events changed lately: the next run that has summed them decides"}


@pytest.fixture
def newly_credited(incremental: Billing) -> Billing:
    """One customer has had a credit of 20, which no stored sum has counted yet."""
    incremental.add_event(CREDITED, -20)
    incremental.set_counter(CREDITED, -10)
    tick(incremental)
    assert incremental.value("select sum(credit_units) from recon.usage_aggregate") == 0
    return incremental


@pytest.mark.parametrize("counted", [-12, -10])
def test_a_credit_that_no_sum_has_counted_raises_no_counter_when_it_leaves_before_the_comparison(
    newly_credited: Billing, counted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    newly_credited.set_counter(CREDITED, counted)
    run = new_run(newly_credited.url, max_events_left=0, refuses_negative=False)
    aggregate = Run.aggregate

    def then_shrink(self: Run) -> Any:
        done = aggregate(self)
        newly_credited.query(NO_CREDIT)
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Run, "aggregate", then_shrink)
        run.compare()
    run.repair()

    assert newly_credited.counter(CREDITED) == counted
    assert errors(newly_credited) == {"its events changed lately: the next run that has summed them decides"}
    run.note_verified(run.verify())
    tick(newly_credited)
    assert newly_credited.counter(CREDITED) == counted
    assert "credits of 20 units left the log since this counter last matched" in errors(newly_credited)


def test_a_credit_that_no_sum_has_counted_raises_no_counter_when_it_leaves_after_the_comparison(
    newly_credited: Billing,
) -> None:
    newly_credited.set_counter(CREDITED, -12)
    run = new_run(newly_credited.url, max_events_left=0, refuses_negative=False)
    run.compare()

    run.repair(before={"lock_free_counters": lambda: newly_credited.query(NO_CREDIT)})

    assert newly_credited.counter(CREDITED) == -12
    assert errors(newly_credited) == {"its events changed lately: the next run that has summed them decides"}
