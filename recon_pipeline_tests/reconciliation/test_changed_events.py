"""Deleted, updated and truncated events, and a log that turns out to be another one, leave no sum wrong."""

import itertools
import random
import secrets
import time
from contextlib import ExitStack
from typing import Any

import pytest
from psycopg.errors import DeadlockDetected, SerializationFailure

from recon_pipeline.core.errors import PutOffError
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing
from recon_pipeline_tests.reconciliation.conftest import MakeBilling, install_increments
from recon_pipeline_tests.reconciliation.increments import (
    advance,
    aggregated,
    event_sums,
    is_exact,
    once,
    tick,
    wrong_totals,
)
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import APPLICATION, background, wait_until, wait_until_blocked

NOTES = "select gateway_customer_id from recon.invalidated_key order by 1"
ONE_OF_A = "where id = (select id from billing_usage_events where gateway_customer_id = 'a' limit 1)"
DELETE_ONE_OF_A = f"delete from billing_usage_events {ONE_OF_A}"
WITH_CUSTOMERS = """
    create table billing_customers (id text primary key);
    insert into billing_customers values ('a'), ('b');
    alter table billing_usage_events
        add foreign key (gateway_customer_id) references billing_customers on delete cascade on update cascade;
    alter table billing_usage_counters
        add foreign key (gateway_customer_id) references billing_customers on delete cascade on update cascade;
"""
MANY_KEYS = """
    with event as (
        insert into billing_usage_events (
            gateway_name, gateway_customer_id, usage_type, request_id, quantity, period_start, period_end
        )
        select 'stripe', 'customer_' || n, 'remote_commands', n, 1, '2025-05-01 00:00Z', '2025-06-01 00:00Z'
        from generate_series(1, %s) as n
        returning *
    )
    insert into billing_usage_counters (
        gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
    )
    select gateway_name, gateway_customer_id, usage_type, period_start, period_end, quantity from event
"""
CHANGE_MANY_KEYS = """
    with event as (
        update billing_usage_events set quantity = quantity + 1 where request_id::int <= %s
        returning gateway_customer_id
    )
    update billing_usage_counters set usage_count = usage_count + 1
    where gateway_customer_id in (select gateway_customer_id from event)
"""
IMPATIENT = "-c lock_timeout=1000"


def fill(billing: Billing) -> Billing:
    """Customers `a` and `b` have used 10 in 5 events each, counted and absorbed."""
    for customer in ("a", "b"):
        for _ in range(5):
            billing.record(customer, 2)
    advanced(billing)
    assert is_exact(billing, absorbed=True)
    return billing


@pytest.fixture
def filled(incremental_billing: Billing) -> Billing:
    return fill(incremental_billing)


def advanced(billing: Billing) -> Advance:
    return advance(new_run(billing.url))


def notes(billing: Billing) -> list[str | None]:
    return [row[0] for row in billing.query(NOTES)]


@pytest.mark.parametrize(
    ("change", "noted", "left_alone"),
    [
        ("delete from billing_usage_events where gateway_customer_id = 'a'", ["a"], 0),
        (DELETE_ONE_OF_A, ["a"], 0),
        (f"update billing_usage_events set quantity = 9 {ONE_OF_A}", ["a"], 0),
        (f"update billing_usage_events set gateway_customer_id = 'c' {ONE_OF_A}", ["a", "c"], 0),
        (f"update billing_usage_events set usage_type = 'sms' {ONE_OF_A}", ["a", "a"], 0),
        (f"update billing_usage_events set period_end = period_end - interval '1 day' {ONE_OF_A}", ["a", "a"], 2),
        ("update billing_usage_events set quantity = quantity + 1", ["a", "b"], 0),
    ],
)
def test_changed_events_are_noted_counted_at_once_and_summed_anew(
    filled: Billing, change: str, noted: list[str], left_alone: int
) -> None:
    """Left alone are the two keys of one usage under two periods that overlap."""
    filled.query(change)

    assert notes(filled) == noted
    assert is_exact(filled), "exact before any run has looked"
    assert mismatch_count(filled.url) > 0
    done = advanced(filled)
    assert (done.recomputed_months, done.rebuilt_because) == (("2025-05",), None)
    assert is_exact(filled, absorbed=True)
    assert not [customer for customer in notes(filled) if customer is None]
    reconcile(filled.url)
    assert mismatch_count(filled.url) == left_alone


def test_a_repair_sums_every_key_anew_and_leaves_one_whose_events_left_since_to_the_next_run(filled: Billing) -> None:
    filled.record("a", 20, period=JUNE)
    advance(new_run(filled.url, last="2025-06"))
    with filled.session() as old:
        old.value("select pg_current_xact_id()::text")  # holds the horizon, so that what follows is beside the sums
        for customer, quantity in (("a", 5), ("b", 7)):
            filled.record(customer, quantity)
        filled.query("update billing_usage_counters set usage_count = usage_count + 1")
        run = new_run(filled.url, last="2025-06")
        assert run.compare().summary.drift_count == 3
        filled.query(f"{DELETE_ONE_OF_A.removesuffix(' limit 1)')} and quantity = 2 limit 1)")
        filled.touch_counters()

        outcome = run.repair()

    assert (outcome.repaired, outcome.doubtful) == (2, 1)
    assert filled.counters() == {"a": 16, "b": 17}
    assert filled.counters(period=JUNE) == {"a": 20}
    assert reconcile(filled.url).repaired == 1
    assert filled.counters() == {"a": 13, "b": 17}


def test_an_update_that_touches_nothing_that_is_summed_notes_nothing(filled: Billing) -> None:
    filled.query("""update billing_usage_events set metadata = '{"device": 1}'""")
    filled.query("update billing_usage_events set quantity = quantity")
    filled.query("delete from billing_usage_events where quantity > 1000")

    assert notes(filled) == []
    assert advanced(filled).recomputed_months == ()


def test_notes_of_usage_that_nobody_aggregates_do_not_pile_up(filled: Billing) -> None:
    for _ in range(3):
        filled.add_event("a", 5, usage_type="sms_messages")
    filled.query("delete from billing_usage_events where usage_type = 'sms_messages'")
    assert notes(filled) == ["a"]

    advanced(filled)

    assert notes(filled) == []
    assert is_exact(filled, absorbed=True)


@pytest.mark.parametrize("to", ["pg_current_xact_id()", "null"])
def test_an_event_that_is_given_another_transaction_id_is_counted_once(filled: Billing, to: str) -> None:
    filled.add_event("a", 5)
    filled.query(f"update billing_usage_events set ingest_xid = {to}")

    assert is_exact(filled)
    advanced(filled)
    assert is_exact(filled, absorbed=True)


def test_a_change_that_is_rolled_back_notes_nothing(filled: Billing) -> None:
    with filled.session() as application:
        application.query("delete from billing_usage_events")
        application.connection.rollback()

    assert notes(filled) == []
    assert is_exact(filled, absorbed=True)


def test_an_event_that_is_deleted_before_it_was_absorbed_is_never_counted(filled: Billing) -> None:
    with filled.session() as late:
        late.add_event("a", 100)
        late.add_event("c", 100)
        advanced(filled)
        late.connection.commit()
    filled.query("delete from billing_usage_events where quantity = 100")

    assert is_exact(filled)
    advanced(filled)
    assert is_exact(filled, absorbed=True)
    assert aggregated(filled) == {"a": 10, "b": 10}


def test_an_event_that_is_deleted_and_inserted_again_is_counted_once(filled: Billing) -> None:
    with filled.session() as application:
        application.query("create temporary table moved on commit drop as select * from billing_usage_events")
        application.query("delete from billing_usage_events")
        application.query("alter table moved drop ingest_xid")
        application.query(
            "insert into billing_usage_events (id, gateway_name, gateway_customer_id, usage_type, request_id, "
            "quantity, period_start, period_end, event_timestamp, metadata, created_at) select * from moved"
        )
        application.connection.commit()

    assert is_exact(filled)
    advanced(filled)
    assert is_exact(filled, absorbed=True)


def test_a_customer_who_is_erased_with_everything_leaves_no_aggregate(make_incremental_billing: MakeBilling) -> None:
    billing = fill(make_incremental_billing(WITH_CUSTOMERS))

    billing.query("delete from billing_customers where id = 'b'")

    assert is_exact(billing)
    assert mismatch_count(billing.url) == 0
    assert advanced(billing).rebuilt_because is None
    assert aggregated(billing) == {"a": 10}
    assert billing.value("select count(*) from recon.usage_aggregate where gateway_customer_id = 'b'") == 0
    assert wrong_totals(billing) == []


def test_a_customer_who_is_renamed_with_everything_takes_the_sums_along(make_incremental_billing: MakeBilling) -> None:
    billing = fill(make_incremental_billing(WITH_CUSTOMERS))

    billing.query("update billing_customers set id = 'z' where id = 'b'")

    assert is_exact(billing)
    assert mismatch_count(billing.url) == 0
    advanced(billing)
    assert aggregated(billing) == {"a": 10, "z": 10}


@pytest.mark.parametrize("is_recomputing", [False, True])
@pytest.mark.parametrize("is_begun_before", [False, True])
def test_a_delete_that_commits_before_any_statement_of_a_run_leaves_sums_exact_and_does_not_wait(
    filled: Billing, is_recomputing: bool, is_begun_before: bool
) -> None:
    statements = 0
    for number in itertools.count():
        filled.add_event("a", 3)
        filled.add_event("b", 3)
        if is_recomputing:
            filled.query("delete from billing_usage_events where gateway_customer_id = 'b'")
        statements_seen = 0
        with filled.session(options=IMPATIENT, application_name=APPLICATION) as application:

            def delete(_: str, number: int = number, application: Billing = application) -> None:
                nonlocal statements_seen
                statements_seen += 1
                if statements_seen == number + 1:
                    if not is_begun_before:
                        application.query(DELETE_ONE_OF_A)
                    application.connection.commit()

            if is_begun_before:
                application.query(DELETE_ONE_OF_A)
            advance(new_run(filled.url), before=delete)
            application.connection.commit()
        assert is_exact(filled), f"before statement {number}"
        assert advanced(filled).rebuilt_because is None
        assert is_exact(filled, absorbed=True), f"before statement {number}"
        if statements_seen <= number:
            statements = number
            break
    assert statements > 5


def test_a_delete_of_a_role_that_may_do_nothing_else_is_noted(filled: Billing) -> None:
    role = f"eraser_{secrets.token_hex(4)}"
    filled.query(f"create role {role}; grant select, delete on billing_usage_events to {role}")
    try:
        filled.query(f"set role {role}")
        filled.query(DELETE_ONE_OF_A)
    finally:
        filled.query("reset role")
        filled.query(f"drop owned by {role}; drop role {role}")

    assert notes(filled) == ["a"]
    assert is_exact(filled)


def test_a_delete_that_cannot_be_noted_by_key_succeeds_and_has_everything_built_anew(filled: Billing) -> None:
    filled.query("alter table billing_usage_events rename created_at to made_at")
    filled.query(DELETE_ONE_OF_A)
    filled.query("alter table billing_usage_events rename made_at to created_at")

    assert notes(filled) == [None]
    assert mismatch_count(filled.url) == 1
    assert advanced(filled).rebuilt_because is not None
    assert is_exact(filled, absorbed=True)


@pytest.mark.parametrize("more", ["", "; insert into billing_usage_events select * from kept"])
def test_a_truncated_log_has_everything_built_anew(filled: Billing, more: str) -> None:
    filled.query("create table kept as select * from billing_usage_events where gateway_customer_id = 'a'")
    filled.query(f"truncate billing_usage_events{more}")

    assert mismatch_count(filled.url) == (1 if more else 2), "exact before any run has looked"
    assert advanced(filled) == Advance(built_months=("2025-05",), rebuilt_because="the log was truncated")
    assert is_exact(filled, absorbed=True)
    assert notes(filled) == []
    assert advanced(filled) == Advance()


def test_a_run_that_meets_an_open_truncation_is_put_off_changes_nothing_and_the_next_builds_everything_anew(
    filled: Billing,
) -> None:
    june: dict[str, Any] = {"last": "2025-06"}
    before = filled.query("select * from recon.usage_aggregate order by gateway_customer_id")
    with filled.session(options=IMPATIENT) as application:
        application.query("truncate billing_usage_events")
        application.add_event("a", 1)
        application.add_event("j", 1, period=JUNE)
        with pytest.raises(PutOffError, match="billing_usage_events"):
            advance(new_run(filled.url, **june))
        application.connection.commit()
    assert filled.query("select * from recon.usage_aggregate order by gateway_customer_id") == before

    assert mismatch_count(filled.url, **june) == 3
    assert advance(new_run(filled.url, **june)).rebuilt_because == "the log was truncated"
    assert event_sums(new_run(filled.url, **june)) == aggregated(filled) == {"a": 1, "j": 1}


@pytest.mark.parametrize(
    "moment", ["note_event_log", "log_position", "add_to_aggregates", "take_notes", "move_horizon"]
)
def test_a_truncation_that_begins_while_a_run_advances_waits_for_it_and_is_not_forgotten(
    filled: Billing, moment: str
) -> None:
    filled.add_event("a", 3)
    with filled.session(autocommit=True, application_name=APPLICATION) as application, background() as start:

        def truncate() -> None:
            start(application.query, "truncate billing_usage_events")
            wait_until_blocked(filled, APPLICATION)

        assert advance(new_run(filled.url), before=once(moment, truncate)).absorbed_count == 1
    filled.add_event("a", 1)

    assert mismatch_count(filled.url) == 2
    assert advanced(filled).rebuilt_because == "the log was truncated"
    assert is_exact(filled, absorbed=True)
    assert aggregated(filled) == {"a": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("update recon.event_log set horizon = '9000000000'", "restored"),
        (
            "update recon.event_log set identity = 'server 1 database 2 events 3 partitions counters 4'",
            "billing_usage_events is another log than before",
        ),
        (
            "alter table billing_usage_events rename to elsewhere;"
            "create table billing_usage_events (like elsewhere including all);"
            "insert into billing_usage_events select * from elsewhere limit 3",
            "billing_usage_events is another table",
        ),
    ],
)
def test_a_log_that_is_not_the_one_of_the_aggregates_has_everything_built_anew(
    filled: Billing, change: str, reason: str
) -> None:
    filled.query("delete from recon.usage_aggregate where gateway_customer_id = 'a'")
    filled.query(change)
    install_increments(filled.url)
    sums = filled.event_sums()
    wrong = [customer for customer, counted in filled.counters().items() if sums.get(customer, 0) != counted]

    assert mismatch_count(filled.url) == len(wrong), "exact before any run has looked"
    assert reason in (advanced(filled).rebuilt_because or "")
    assert is_exact(filled, absorbed=True)
    assert advanced(filled) == Advance()


def test_notes_of_one_key_do_not_pile_up_while_no_tick_comes(filled: Billing) -> None:
    for number in range(200):
        filled.query("update billing_usage_events set quantity = %s where gateway_customer_id = 'a'", number % 7 + 1)

    assert notes(filled) == ["a"]
    advanced(filled)
    assert notes(filled) == []
    assert is_exact(filled, absorbed=True)


def test_transactions_that_change_events_of_one_key_do_not_wait_for_each_other_nor_for_a_run(filled: Billing) -> None:
    rows = filled.query("select id from billing_usage_events where gateway_customer_id = 'a' order by id")
    change = "update billing_usage_events set quantity = 7 where id = %s"
    for is_noted in (False, True):
        if is_noted:
            filled.query(change.replace("7", "8"), rows[4].id)
        with ExitStack() as opened:
            sessions = [opened.enter_context(filled.session(options="-c lock_timeout=1")) for _ in range(3)]
            for row, session in zip(rows, sessions, strict=False):
                session.query(change.replace("7", str(7 + is_noted)), row.id)
            assert advanced(filled).waits_because is None
            assert is_exact(filled)
            for session in sessions:
                session.connection.commit()
                assert is_exact(filled)
                assert advanced(filled).waits_because is None
                assert is_exact(filled), "a note that others rely on stays until they have ended"
        assert is_exact(filled, absorbed=True)
    assert notes(filled) == []


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("is_noted", [False, True])
@pytest.mark.parametrize("is_taken", ["before the change", "after the change", "after the commit"])
def test_a_change_is_noted_whatever_a_run_takes_away_meanwhile(
    filled: Billing, isolation: str, is_noted: bool, is_taken: str
) -> None:
    """A noted key needs no second note, but the first may be taken by a run that does not see the change yet."""
    if is_noted:
        filled.query(DELETE_ONE_OF_A)
    with filled.session(options=IMPATIENT) as application:
        application.query(f"set transaction isolation level {isolation}")
        application.query("select count(*) from billing_usage_events")
        if is_taken == "before the change":
            advanced(filled)
        application.query("update billing_usage_events set quantity = 9 where gateway_customer_id = 'a'")
        if is_taken == "after the change":
            advanced(filled)
        application.connection.commit()

    assert is_exact(filled)
    advanced(filled)
    assert is_exact(filled, absorbed=True)
    assert notes(filled) == []


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_no_update_is_lost_by_the_sums_under_updaters_and_ticks_at_full_speed(filled: Billing, isolation: str) -> None:
    keys = [row.id for row in filled.query("select id from billing_usage_events")]
    done: list[int] = []
    stop: list[bool] = []

    def update(seed: int) -> None:
        choices = random.Random(seed)  # noqa: S311 - not a secret
        options = f"-c default_transaction_isolation={isolation.replace(' ', chr(92) + ' ')}"
        with filled.session(options=options, application_name=APPLICATION) as application:
            while not stop:
                try:
                    for _ in range(choices.randint(1, 3)):
                        application.query(
                            "update billing_usage_events set quantity = %s where id = %s",
                            choices.randint(1, 9),
                            choices.choice(keys),
                        )
                    if choices.random() < 0.1:
                        application.connection.rollback()
                    application.connection.commit()
                except (SerializationFailure, DeadlockDetected):
                    application.connection.rollback()
                done.append(seed)

    with background() as start:
        try:
            for seed in range(4):
                start(update, seed)
            for number in range(1, 31):
                wait_until(lambda number=number: len(done) >= 20 * number)
                advanced(filled)
                if number % 5 == 0:
                    tick(filled.url)
        finally:
            stop.append(True)

    assert is_exact(filled), "what is noted is summed from the log, and all else is right"
    assert len(notes(filled)) <= len(done)
    advanced(filled)
    assert is_exact(filled, absorbed=True)
    tick(filled.url)
    assert filled.counters() == filled.event_sums()
    assert filled.value("select coalesce(sum(aggregates_differing), 0) from recon.reconciliation_run") == 0


@pytest.mark.parametrize("is_noted_in_the_middle_of_a_run", [False, True])
def test_to_sum_noted_keys_anew_takes_time_in_proportion_to_their_number(
    incremental_billing: Billing, is_noted_in_the_middle_of_a_run: bool
) -> None:
    """It was quadratic: 16,000 keys took 64 times as long as 2,000, and 100,000 never ended."""
    few, many = 2_000, 16_000
    incremental_billing.query(MANY_KEYS, many)
    tick(incremental_billing.url)

    def seconds(keys: int) -> float:
        run = new_run(incremental_billing.url)
        if is_noted_in_the_middle_of_a_run:
            run.compare()
        incremental_billing.query(CHANGE_MANY_KEYS, keys)
        began = time.monotonic()
        if is_noted_in_the_middle_of_a_run:
            answer = run.verify()
            assert answer.mismatch_count == 0
            run.note_verified(answer)
        assert advanced(incremental_billing).recomputed_months == ("2025-05",)
        took = time.monotonic() - began
        assert notes(incremental_billing) == []
        tick(incremental_billing.url)
        return took

    base = min(seconds(few) for _ in range(3))
    assert seconds(many) < 3 * many / few * base
    assert is_exact(incremental_billing, absorbed=True)
