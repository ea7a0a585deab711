"""Repairs are taken back by the inverse of what they added, once, and what was counted since stays."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.counters import holds
from recon_pipeline.store.counters import repair as repair_module
from recon_pipeline.store.counters import undo as undo_module
from recon_pipeline.store.counters.pause import pause_repairs, resume_repairs
from recon_pipeline.store.counters.undo import UndoRecord, undo_repairs
from recon_pipeline.store.counters.undo_request import UndoRequest
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import ACCOUNTED, BIGINT_MAX, Billing, customers
from recon_pipeline_tests.reconciliation.product import new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import background, wait_until_blocked, writers

CUSTOMERS = customers(7)
USED, COUNTED = 10, 3
DEFERRED = CUSTOMERS[2]


@pytest.fixture
def repaired(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Seven customers of whom 10 was used and 3 counted, repaired to 10; repairs are paused; chunks have three keys."""
    monkeypatch.setattr(undo_module, "CHUNK_ROWS", 3)
    for customer in CUSTOMERS:
        billing.record(customer, USED)
        billing.set_counter(customer, COUNTED)
    reconcile(billing.url)
    assert billing.counters() == dict.fromkeys(CUSTOMERS, USED)
    pause(billing)
    return billing


def pause(billing: Billing) -> None:
    with BillingDatabase(billing.url).connection() as connection:
        pause_repairs(connection, reason="INC-1", paused_by="ada", until=None)


def resume(billing: Billing) -> None:
    with BillingDatabase(billing.url).connection() as connection:
        resume_repairs(connection, reason=None, resumed_by="ada")


def hold(billing: Billing, *names: str) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    with BillingDatabase(billing.url).connection() as connection:
        holds.hold(connection, names, (), reason="TICKET-9", held_by="ada", until=until)


def latest_run(billing: Billing) -> str:
    return billing.value("select run_id from recon.counter_repair order by id desc limit 1")


def undo(billing: Billing, run_id: str | None = None, *names: str) -> UndoRecord:
    """Take back the repairs of a run, or of the latest that is in the ledger."""
    request = UndoRequest(str(uuid.uuid4()), run_id or latest_run(billing), names, "the log was short", "ada")
    with BillingDatabase(billing.url).connection() as connection:
        return undo_repairs(connection, request)


def figures(record: UndoRecord) -> dict[str, int]:
    names = ("undone", "already_undone", "below_zero", "without_counter", "deferred", "failed")
    return {name: getattr(record, name) for name in names if getattr(record, name)}


def assert_accounted(billing: Billing, increments: Callable[[str], int]) -> None:
    """For each key: counter = increments by the application (here also by an incident) + sum of the ledger's deltas."""
    for customer, counted, repaired in billing.query(ACCOUNTED):
        assert counted == increments(customer) + repaired, customer


def test_repairs_are_taken_back_and_what_was_counted_since_stays(repaired: Billing) -> None:
    run_id = latest_run(repaired)
    repaired.record(CUSTOMERS[0], 5)

    record = undo(repaired)

    assert figures(record) == {"undone": 7}
    assert (record.undone_run_id, record.reason, record.requested_by) == (run_id, "the log was short", "ada")
    assert record.finished_at is not None
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED) | {CUSTOMERS[0]: COUNTED + 5}
    rows = repaired.query("select * from recon.counter_repair where kind = 'undo' order by gateway_customer_id")
    assert [(row.usage_count_before, row.usage_count_after, row.usage_delta) for row in rows] == [
        (15, 8, -7),
        *[(USED, COUNTED, -7)] * 6,
    ]
    assert {row.run_id for row in rows} == {record.run_id}
    assert_accounted(repaired, lambda customer: COUNTED + (5 if customer == CUSTOMERS[0] else 0))


def test_twice_is_once(repaired: Billing) -> None:
    run_id = latest_run(repaired)
    undo(repaired, run_id)

    assert figures(undo(repaired, run_id)) == {"already_undone": 7}
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED)


def test_an_undo_can_be_undone_and_that_again(repaired: Billing) -> None:
    first = undo(repaired)

    second = undo(repaired, first.run_id)
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, USED)
    third = undo(repaired, second.run_id)

    assert (figures(second), figures(third)) == ({"undone": 7}, {"undone": 7})
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED)
    assert_accounted(repaired, lambda _: COUNTED)


def test_only_the_repairs_of_some_customers_are_taken_back(repaired: Billing) -> None:
    run_id = latest_run(repaired)

    assert figures(undo(repaired, run_id, CUSTOMERS[1], "nobody")) == {"undone": 1}
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, USED) | {CUSTOMERS[1]: COUNTED}
    assert figures(undo(repaired, run_id)) == {"undone": 6, "already_undone": 1}


def test_a_counter_that_a_repair_made_is_left_with_what_was_counted_since(billing: Billing) -> None:
    billing.add_event("new", USED)
    reconcile(billing.url)
    billing.record("new", 4)
    pause(billing)

    undo(billing)

    assert billing.counter("new") == 4


def test_a_counter_never_falls_below_0_and_is_named(repaired: Billing) -> None:
    repaired.set_counter(CUSTOMERS[3], 6)
    repaired.set_counter(CUSTOMERS[4], 7)

    record = undo(repaired)

    assert figures(record) == {"undone": 6, "below_zero": 1}
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED) | {CUSTOMERS[3]: 6, CUSTOMERS[4]: 0}
    assert record.not_undone is not None
    (named,) = record.not_undone
    assert (named["gateway_customer_id"], named["usage_count"], named["usage_delta"]) == (CUSTOMERS[3], "6", "7")


def test_a_counter_that_credits_had_below_0_is_given_back_as_it_was(billing: Billing) -> None:
    billing.query("alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check")
    for customer, counted in (("credited", -3), ("used less since", -3), ("was above 0", 2)):
        billing.add_event(customer, 10)
        billing.add_counter(customer, counted)
    reconcile(billing.url)
    billing.set_counter("used less since", 9)
    billing.set_counter("was above 0", 7)
    pause(billing)

    record = undo(billing)

    assert figures(record) == {"undone": 1, "below_zero": 2}
    assert billing.counters() == {"credited": -3, "used less since": 9, "was above 0": 7}


def test_an_undo_that_raises_a_counter_below_0_is_made(billing: Billing) -> None:
    billing.query("alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check")
    billing.record("a", 12)
    billing.set_counter("a", 15)
    reconcile(billing.url)
    billing.set_counter("a", -8)
    pause(billing)

    assert figures(undo(billing)) == {"undone": 1}
    assert billing.counter("a") == -5


def test_a_counter_that_is_gone_and_one_that_postgres_refuses_stop_only_themselves(repaired: Billing) -> None:
    repaired.query("delete from billing_usage_counters where gateway_customer_id = %s", CUSTOMERS[0])
    repaired.query(
        "alter table billing_usage_counters add constraint poison "
        f"check (gateway_customer_id <> '{CUSTOMERS[5]}' or usage_count = {USED})"
    )

    record = undo(repaired)

    assert figures(record) == {"undone": 5, "without_counter": 1, "failed": 1}
    assert {(row["gateway_customer_id"], "poison" in row["error"]) for row in record.not_undone or ()} == {
        (CUSTOMERS[0], False),
        (CUSTOMERS[5], True),
    }
    repaired.query("alter table billing_usage_counters drop constraint poison")
    assert figures(undo(repaired, record.undone_run_id)) == {"undone": 1, "without_counter": 1, "already_undone": 5}


def test_a_counter_past_bigint_is_refused_by_itself(billing: Billing) -> None:
    billing.add_event("a", 1)
    billing.add_counter("a", USED)
    billing.add_event("b", 1)
    billing.add_counter("b", USED)
    reconcile(billing.url)
    billing.set_counter("a", BIGINT_MAX)
    pause(billing)

    record = undo(billing)

    assert figures(record) == {"undone": 1, "failed": 1}
    assert billing.counters() == {"a": BIGINT_MAX, "b": USED}


def test_a_counter_that_another_session_has_locked_is_deferred(
    repaired: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_module, "COUNTER_LOCK_TIMEOUT_MS", 20)
    with repaired.session() as holder:
        holder.query("select from billing_usage_counters where gateway_customer_id = %s for update", DEFERRED)
        record = undo(repaired)

    assert figures(record) == {"undone": 6, "deferred": 1}
    assert figures(undo(repaired, record.undone_run_id)) == {"undone": 1, "already_undone": 6}


def test_a_counter_that_is_locked_for_longer_than_an_undo_waits_by_itself_is_put_off_and_no_failure(
    repaired: Billing,
) -> None:
    """With the limits as they are: none but that of the lock may end the wait."""
    with repaired.session() as holder:
        holder.query("select from billing_usage_counters where gateway_customer_id = %s for update", DEFERRED)
        record = undo(repaired)

    assert figures(record) == {"undone": 6, "deferred": 1}
    assert record.not_undone is not None
    assert "lock timeout" in record.not_undone[0]["error"]


@pytest.mark.parametrize("held", [(), CUSTOMERS[:6]])
def test_what_the_next_run_would_make_again_is_refused(repaired: Billing, held: tuple[str, ...]) -> None:
    resume(repaired)
    hold(repaired, *held) if held else None

    with pytest.raises(ReconError, match=f"make {7 - len(held)} of these 7 repairs again") as caught:
        undo(repaired)

    assert CUSTOMERS[len(held)] in caught.value.fix
    assert "recon pause" in caught.value.fix
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, USED)
    assert repaired.query("select * from recon.undo") == []


def test_held_customers_are_taken_back_and_stay_so_while_they_are_held(repaired: Billing) -> None:
    resume(repaired)
    hold(repaired, *CUSTOMERS)

    assert figures(undo(repaired)) == {"undone": 7}
    run = new_run(repaired.url)
    run.compare()
    assert run.repair().held == 7
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED)


def test_several_repairs_of_one_key_in_one_run_are_all_taken_back(billing: Billing) -> None:
    billing.record("a", USED)
    billing.set_counter("a", COUNTED)
    run = new_run(billing.url)
    run.compare()
    run.repair()
    billing.set_counter("a", 8)
    run.compare()
    run.repair()
    assert len(billing.ledger()) == 2
    pause(billing)

    assert figures(undo(billing)) == {"undone": 2}
    assert billing.value("select sum(usage_delta) from recon.counter_repair") == 0


def test_two_undos_at_once_take_each_repair_back_once(repaired: Billing) -> None:
    run_id = latest_run(repaired)
    with background() as start:
        both = [start(undo, repaired, run_id) for _ in range(2)]

    assert sum(one.result().undone for one in both) == 7
    assert [one.result().failed for one in both] == [0, 0]
    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED)


def test_an_increment_that_waits_for_the_undo_is_kept(repaired: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    original = undo_module._Undoer._lock_and_undo
    started: list[object] = []

    with background() as start:

        def increment_meanwhile(self: undo_module._Undoer, ids: list[int], *, waits: bool) -> object:
            rows = original(self, ids, waits=waits)
            if not started:
                started.append(start(record_all))
                wait_until_blocked(repaired, "application")
            return rows

        def record_all() -> None:
            with repaired.session(autocommit=True, application_name="application") as session:
                for customer in CUSTOMERS:
                    session.record(customer, 5)

        monkeypatch.setattr(undo_module._Undoer, "_lock_and_undo", increment_meanwhile)
        undo(repaired)

    assert repaired.counters() == dict.fromkeys(CUSTOMERS, COUNTED + 5)
    assert_accounted(repaired, lambda _: COUNTED + 5)


def test_no_increment_is_lost_while_repairs_are_taken_back_and_forth_under_load(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_module, "CHUNK_ROWS", 2)
    monkeypatch.setattr(repair_module, "CHUNK_KEYS", 8)
    hot = customers(5, prefix="hot")
    for customer in hot:
        billing.record(customer, 1_000)
        billing.set_counter(customer, 100)
    reconcile(billing.url)
    pause(billing)
    taken_back = 0
    with writers(billing, hot) as added:
        run_id = latest_run(billing)
        for _ in range(9):
            record = undo(billing, run_id)
            taken_back += record.undone or 0
            run_id = record.run_id
    resume(billing)

    assert taken_back == 45
    assert billing.counters() == {customer: 100 + added[customer] for customer in hot}
    assert_accounted(billing, lambda customer: 100 + added[customer])
    reconcile(billing.url)
    assert billing.counters() == billing.event_sums()
