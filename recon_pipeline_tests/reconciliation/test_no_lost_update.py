"""No increment is lost: a repair may run while the application increments the same counters at full speed."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import text

from recon_pipeline.store.counters import chunks
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline_tests.reconciliation.billing import ACCOUNTED, MAY, Billing, customers
from recon_pipeline_tests.reconciliation.product import Run, mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import (
    APPLICATION,
    PRODUCT,
    background,
    wait_until_blocked,
    writers,
)

HOT = customers(3, prefix="hot")
ROUNDS = 12


@pytest.fixture
def drifted(billing: Billing) -> Billing:
    """Customer `a` has used 10 and is counted 4; customer `b` has used 20 and is counted 7."""
    for customer, used, counted in (("a", 10, 4), ("b", 20, 7)):
        billing.record(customer, used)
        billing.set_counter(customer, counted)
    return billing


def compared(billing: Billing) -> Run:
    run = new_run(billing.url)
    run.compare()
    return run


def sabotage(billing: Billing, customer: str, choices: random.Random) -> int:
    """Change a counter behind the log's back; returns by how much."""
    if choices.random() < 0.2:
        (gone,) = billing.query(
            "delete from billing_usage_counters where gateway_customer_id = %s returning usage_count", customer
        ) or [None]
        return -gone.usage_count if gone else 0
    before_and_after = billing.query(
        """
        with before as (
            select id, usage_count from billing_usage_counters where gateway_customer_id = %s for update
        )
        update billing_usage_counters as counter set usage_count = greatest(before.usage_count + %s, 0)
        from before where counter.id = before.id
        returning counter.usage_count - before.usage_count
        """,
        customer,
        choices.randint(-500, 500),
    )
    return before_and_after[0][0] if before_and_after else 0


def test_no_increment_is_lost_while_hot_counters_are_repaired_again_and_again(billing: Billing) -> None:
    sabotaged: Counter[str] = Counter()
    choices = random.Random(7)  # noqa: S311 - not a secret
    for customer in HOT:
        billing.record(customer, 1)
    with writers(billing, HOT) as added:
        for _ in range(ROUNDS):
            for customer in HOT:
                sabotaged[customer] += sabotage(billing, customer, choices)
            reconcile(billing.url)
    reconcile(billing.url)

    assert billing.counters() == billing.event_sums()
    assert len(billing.ledger()) >= ROUNDS, "the repairs found nothing to repair, so nothing was tried"
    for customer, counted, repaired in billing.query(ACCOUNTED):
        assert counted == 1 + added[customer] + sabotaged[customer] + repaired


def test_an_increment_that_commits_between_comparison_and_repair_is_kept(drifted: Billing) -> None:
    run = compared(drifted)
    drifted.record("a", 5)

    run.repair()

    assert drifted.counters() == {"a": 15, "b": 20}
    assert ("a", "under", 9, 15) in drifted.ledger()


def test_a_counter_that_was_changed_and_changed_back_is_summed_anew(drifted: Billing) -> None:
    run = compared(drifted)
    drifted.record("a", 5)
    drifted.set_counter("a", 4)

    run.repair()

    assert drifted.counters() == {"a": 15, "b": 20}


@pytest.mark.parametrize("moment", ["keys_to_repair", "lock_free_counters", "repair_locked_counters"])
def test_an_event_that_another_run_adds_to_the_aggregates_meanwhile_is_not_counted_twice(
    drifted: Billing, moment: str
) -> None:
    run = compared(drifted)
    drifted.record("a", 5)

    run.repair(before={moment: new_run(drifted.url).aggregate})

    assert drifted.counters() == {"a": 15, "b": 20}
    assert run.verify().mismatch_count == 0


def test_an_event_of_the_very_transaction_at_the_horizon_is_summed(drifted: Billing) -> None:
    with drifted.session() as application:
        application.record("a", 5)
        run = compared(drifted)
        application.connection.commit()

    run.repair()

    assert drifted.counters() == {"a": 15, "b": 20}


def test_without_settle_seconds_an_increment_that_is_still_to_come_counts_twice_until_the_next_run(
    drifted: Billing,
) -> None:
    run = compared(drifted)
    drifted.add_event("a", 5)

    run.repair()
    drifted.query("update billing_usage_counters set usage_count = usage_count + 5 where gateway_customer_id = 'a'")
    assert drifted.counters() == {"a": 20, "b": 20}

    reconcile(drifted.url)
    assert drifted.counters() == {"a": 15, "b": 20}


def test_a_counter_that_a_vacuum_moved_meanwhile_is_repaired_all_the_same(drifted: Billing) -> None:
    run = compared(drifted)
    drifted.query("vacuum full billing_usage_counters")

    run.repair()

    assert drifted.counters() == {"a": 10, "b": 20}


@pytest.mark.parametrize("moment", ["enter_chunk", "keys_to_repair", "lock_free_counters"])
def test_an_increment_that_commits_just_before_the_lock_is_kept(drifted: Billing, moment: str) -> None:
    run = compared(drifted)

    run.repair(before={moment: lambda: drifted.record("a", 5)})

    assert drifted.counters() == {"a": 15, "b": 20}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_increment_that_starts_once_the_counter_is_locked_waits_and_is_kept(drifted: Billing, moment: str) -> None:
    run = compared(drifted)
    with drifted.session(autocommit=True, application_name=APPLICATION) as application, background() as start:

        def increment_now() -> None:
            start(application.record, "a", 5)
            wait_until_blocked(drifted, APPLICATION)

        hooks = {"repair_locked_counters": increment_now}
        run.repair(before=hooks) if moment == "before" else run.repair(after=hooks)

    assert drifted.counters() == {"a": 15, "b": 20}
    assert drifted.ledger() == [("a", "under", 4, 10), ("b", "under", 7, 20)]


def test_a_counter_locked_by_an_uncommitted_increment_is_skipped_then_waited_for(drifted: Billing) -> None:
    run = compared(drifted)
    progress: list[tuple[int, dict[str, int]]] = []
    with drifted.session(application_name=APPLICATION) as application, background() as start:
        application.record("a", 5)

        def commit_once_the_repair_waits() -> None:
            wait_until_blocked(drifted, PRODUCT)
            application.connection.commit()

        def note(done: int) -> None:
            progress.append((done, drifted.counters()))
            start(commit_once_the_repair_waits)

        outcome = run.repair(on_progress=note)

    assert progress == [(2, {"a": 4, "b": 20})], "the free key was not repaired before the held one"
    assert outcome.repaired == 2
    assert drifted.counters() == {"a": 15, "b": 20}
    assert ("a", "under", 9, 15) in drifted.ledger()


def test_a_counter_that_was_waited_for_is_locked_while_its_sum_is_taken(billing: Billing) -> None:
    billing.record("a", 10)
    billing.set_counter("a", 4)
    run = compared(billing)
    with (
        billing.session() as holder,
        billing.session(autocommit=True, application_name=APPLICATION) as application,
        background() as start,
    ):
        holder.query("select from billing_usage_counters for update")

        def increment_now() -> None:
            start(application.record, "a", 5)
            wait_until_blocked(billing, APPLICATION)

        run.repair(before={"lock_counter": holder.connection.commit, "repair_locked_counters": increment_now})

    assert billing.counters() == {"a": 15}
    assert billing.ledger() == [("a", "under", 4, 10)]


def test_an_increment_that_is_rolled_back_while_the_repair_waits_is_not_counted(drifted: Billing) -> None:
    run = compared(drifted)
    with drifted.session(application_name=APPLICATION) as application, background() as start:
        application.record("a", 5)

        def roll_back_once_the_repair_waits() -> None:
            wait_until_blocked(drifted, PRODUCT)
            application.connection.rollback()

        run.repair(on_progress=lambda _: start(roll_back_once_the_repair_waits))

    assert drifted.counters() == {"a": 10, "b": 20}


def test_a_missing_counter_that_the_application_inserts_first_is_not_counted_twice(billing: Billing) -> None:
    billing.add_event("a", 10)
    run = compared(billing)

    run.repair(before={"create_missing_counters": lambda: billing.record("a", 5)})

    assert billing.counters() == {"a": 15}
    assert billing.ledger() == [("a", "under", 5, 15)]


def test_a_missing_counter_that_the_application_is_just_inserting_is_waited_for(billing: Billing) -> None:
    billing.add_event("a", 10)
    run = compared(billing)
    with billing.session(application_name=APPLICATION) as application, background() as start:
        application.record("a", 5)

        def commit_once_the_repair_waits() -> None:
            wait_until_blocked(billing, PRODUCT)
            application.connection.commit()

        run.repair(before={"create_missing_counters": lambda: start(commit_once_the_repair_waits)})

    assert billing.counters() == {"a": 15}
    assert billing.ledger() == [("a", "under", 5, 15)]


def test_the_application_that_inserts_a_counter_just_after_the_repair_did_adds_to_it(billing: Billing) -> None:
    billing.add_event("a", 10)
    run = compared(billing)
    with billing.session(autocommit=True, application_name=APPLICATION) as application, background() as start:

        def insert_now() -> None:
            start(application.record, "a", 5)
            wait_until_blocked(billing, APPLICATION)

        run.repair(after={"create_missing_counters": insert_now})

    assert billing.counters() == {"a": 15}
    assert billing.ledger() == [("a", "missing", None, 10)]


@pytest.mark.parametrize("moment", ["keys_to_repair", "lock_free_counters", "lock_counter"])
def test_a_counter_that_is_deleted_meanwhile_is_made_anew(drifted: Billing, moment: str) -> None:
    run = compared(drifted)

    def delete() -> None:
        drifted.query("delete from billing_usage_counters where gateway_customer_id = 'a'")

    with drifted.session(application_name=APPLICATION) as holder:
        if moment == "lock_counter":
            holder.query("select from billing_usage_counters where gateway_customer_id = 'a' for update")

        def let_go_and_delete() -> None:
            holder.connection.commit()
            delete()

        outcome = run.repair(before={moment: let_go_and_delete})

    assert outcome.repaired == 2
    assert drifted.counters() == {"a": 10, "b": 20}
    assert ("a", "missing", None, 10) in drifted.ledger()


def test_an_orphan_that_is_deleted_meanwhile_stays_deleted(billing: Billing) -> None:
    billing.add_counter("gone", 5)
    run = compared(billing)
    billing.query("delete from billing_usage_counters")

    outcome = run.repair()

    assert outcome.in_sync == 1
    assert billing.counters() == {}
    assert billing.ledger() == []


def test_a_key_that_came_right_by_itself_gets_no_ledger_row(drifted: Billing) -> None:
    run = compared(drifted)
    drifted.set_counter("a", 10)

    outcome = run.repair()

    assert (outcome.repaired, outcome.in_sync) == (1, 1)
    assert drifted.ledger() == [("b", "under", 7, 20)]


def lock_nothing(name: str, *choices: Any, **parts: str) -> Any:
    """The mutant that reads counter and sum without having locked the counter."""
    found = statement(name, *choices, **parts)
    if name not in {"lock_free_counters", "lock_counter"}:
        return found
    return text(found.text.replace("for no key update of counter", "").replace("skip locked", ""))


def sum_before_lock(self: Any, _: Any, ordinals: Sequence[int], lock: str, *, create: Sequence[int]) -> set[int]:
    """The mutant that computes the event sums first and takes the locks afterwards."""
    sums = self.connection.execute(
        text("select gateway_customer_id, sum(quantity) as used from billing_usage_events group by 1")
    ).all()
    had = self.connection.execute(statement(lock), {"run_id": self.run.run_id, "ordinals": list(ordinals)}).all()
    for row in sums:
        self.connection.execute(
            text("update billing_usage_counters set usage_count = :used where gateway_customer_id = :customer"),
            {"used": row.used, "customer": row.gateway_customer_id},
        )
    return {row.ordinal for row in had}


def test_the_suite_would_notice_a_repair_that_sums_before_it_locks(
    drifted: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Repairer, "_lock_and_repair", sum_before_lock)
    run = compared(drifted)

    run.repair(before={"lock_free_counters": lambda: drifted.record("a", 5)})

    assert drifted.counters() == {"a": 10, "b": 20}, "the mutant was expected to lose the increment of 5"
    assert mismatch_count(drifted.url) == 1


def test_the_suite_would_notice_a_repair_that_takes_no_lock(drifted: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "statement", lock_nothing)
    run = compared(drifted)
    with drifted.session(application_name=APPLICATION) as application, background() as start:
        application.record("a", 5)

        def commit_once_the_repair_waits() -> None:
            wait_until_blocked(drifted, PRODUCT)
            application.connection.commit()

        run.repair(before={"repair_locked_counters": lambda: start(commit_once_the_repair_waits)})

    assert drifted.counters() == {"a": 10, "b": 20}, "the mutant was expected to lose the increment of 5"
    assert mismatch_count(drifted.url) == 1


def test_counters_in_other_months_types_and_gateways_are_left_alone(drifted: Billing) -> None:
    drifted.query(
        """
        insert into billing_usage_counters (
            gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count
        )
        select gateway_name, 'a', usage_type, period_start, period_start + interval '1 month', 99
        from (values
            ('paddle', 'remote_commands', timestamptz '2025-05-01 00:00+00'),
            ('stripe', 'sms_messages', '2025-05-01 00:00+00'),
            ('stripe', 'remote_commands', '2025-06-01 00:00+00'),
            ('stripe', 'remote_commands', '2025-04-30 23:59:59.999999+00')
        ) as elsewhere (gateway_name, usage_type, period_start)
        """
    )

    reconcile(drifted.url)

    assert drifted.value("select count(*) from billing_usage_counters where usage_count = 99") == 4
    assert drifted.counters(period=MAY)["b"] == 20
