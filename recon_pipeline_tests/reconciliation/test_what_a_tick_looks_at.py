"""A tick looks at what changed since it was verified: never at less, and at nothing where nothing has changed."""

from typing import Any

import pytest

from recon_pipeline.store import drift
from recon_pipeline.store.basis import Look, Sums
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.increments import advance, compared, tick
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run
from recon_pipeline_tests.reconciliation.traffic import wait_until

BOTH: dict[str, Any] = {"last": "2025-06"}
COUNT_NOW = "select pg_stat_force_next_flush()"
OF = "where gateway_customer_id = '{}'"


@pytest.fixture
def verified(incremental_billing: Billing) -> Billing:
    """Customers `a` to `d` have used 10 in May and in June, which was verified; nothing is left to be looked at."""
    for customer in "abcd":
        for period in (MAY, JUNE):
            incremental_billing.record(customer, 10, period=period)
    incremental_billing.query(COUNT_NOW)
    verify(incremental_billing)
    return incremental_billing


def verify(billing: Billing) -> None:
    """Ticks until there is nothing to be looked at: what a session changed is counted when it ends."""

    def nothing_is_left() -> bool:
        tick(billing.url, **BOTH)
        return look(billing) is Look.NOTHING

    wait_until(nothing_is_left)


def look(billing: Billing) -> Look:
    return compared(billing.url, **BOTH)[0]


def change(billing: Billing, *statements: str) -> None:
    """Change something in a session of its own, and have it counted."""
    with billing.session(autocommit=True) as session:
        for statement in statements:
            session.query(statement)
        session.query(COUNT_NOW)


def marks(billing: Billing, columns: str = "verified_below, counters_verified_below") -> list[object]:
    return billing.query(
        f"select partition, counters_kept, counters_written, {columns} from recon.usage_month order by 1"
    )


TAMPERING: dict[str, tuple[Look, str]] = {
    "a counter set by hand": (
        Look.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 3 {OF.format('a')}",
    ),
    "a counter changed by another number": (
        Look.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 15 {OF.format('b')} and period_start > '2025-05-15'",
    ),
    "an orphan": (
        Look.CHANGED_KEYS,
        "insert into billing_usage_counters (gateway_name, gateway_customer_id, usage_type, period_start, period_end, "
        "usage_count) select gateway_name, 'orphan', usage_type, period_start, period_end, 7 "
        "from billing_usage_counters limit 1",
    ),
    "a counter changed under a savepoint": (
        Look.CHANGED_KEYS,
        "begin; savepoint s; update billing_usage_counters set usage_count = 4 "
        f"{OF.format('a')}; release s; savepoint t; delete from billing_usage_events; rollback to t; commit",
    ),
    "a counter set after one was deleted": (
        Look.EVERY_KEY,
        f"delete from billing_usage_counters {OF.format('c')}; update billing_usage_counters set usage_count = 3",
    ),
    "a deleted counter": (Look.EVERY_KEY, f"delete from billing_usage_counters {OF.format('c')}"),
    "a counter deleted and made anew": (
        Look.EVERY_KEY,
        f"with gone as (delete from billing_usage_counters {OF.format('c')} returning *) "
        "insert into billing_usage_counters select * from gone",
    ),
    "truncated counters": (Look.EVERY_KEY, "truncate billing_usage_counters"),
    "rewritten counters": (Look.EVERY_KEY, "vacuum full billing_usage_counters"),
    "an event without its counter": (
        Look.CHANGED_KEYS,
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start, "
        "period_end) select gateway_name, 'new', usage_type, 'new', period_start, period_end "
        "from billing_usage_counters limit 1",
    ),
    "an erased customer whose counters stay": (
        Look.CHANGED_KEYS,
        f"delete from billing_usage_events {OF.format('a')}",
    ),
    "events changed by hand": (
        Look.CHANGED_KEYS,
        f"update billing_usage_events set quantity = quantity + 1 {OF.format('d')}",
    ),
    "a truncated log": (Look.LOG, "truncate billing_usage_events"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_is_found_as_by_comparing_everything(verified: Billing, what: str) -> None:
    expected, statements = TAMPERING[what]
    assert compared(verified.url, **BOTH) == (Look.NOTHING, set())

    change(verified, *statements.split("; "))

    looked, found = compared(verified.url, **BOTH)
    assert looked is expected
    assert found == compared(verified.url, sums=Sums.LOG, **BOTH)[1]
    assert len(found) == 0 if what in ("rewritten counters", "a counter deleted and made anew") else len(found) > 0
    tick(verified.url, **BOTH)
    assert compared(verified.url, sums=Sums.LOG, **BOTH)[1] == set()


@pytest.mark.xfail(strict=True, reason="the key that a counter was moved away from is not among the changed keys")
def test_a_counter_moved_to_another_key_is_found_as_by_comparing_everything(verified: Billing) -> None:
    change(verified, f"update billing_usage_counters set gateway_customer_id = 'z' {OF.format('a')}")

    assert compared(verified.url, **BOTH)[1] == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


def test_a_counter_changed_by_a_transaction_that_was_open_when_it_was_verified_is_found(verified: Billing) -> None:
    with verified.session() as late:
        late.query(f"update billing_usage_counters set usage_count = 3 {OF.format('a')}")
        change(verified, f"update billing_usage_counters set usage_count = usage_count {OF.format('b')}")
        tick(verified.url, **BOTH)
        tick(verified.url, **BOTH)
        late.query(COUNT_NOW)
        late.connection.commit()

    looked, found = compared(verified.url, **BOTH)

    assert looked is Look.CHANGED_KEYS
    assert {row[:3:2] for row in found} == {("a", "under")}
    assert found == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


@pytest.mark.parametrize("table", ["counters", "events"])
def test_a_deletion_by_a_transaction_that_was_open_when_it_was_verified_is_found(verified: Billing, table: str) -> None:
    with verified.session() as late:
        late.query(f"delete from billing_usage_{table} {OF.format('a')}")
        verified.record("b", 1)
        tick(verified.url, **BOTH)
        tick(verified.url, **BOTH)
        late.query(COUNT_NOW)
        late.connection.commit()

    found = compared(verified.url, **BOTH)[1]

    assert {row[:3:2] for row in found} == {("a", "missing" if table == "counters" else "orphan")}
    assert found == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


def test_a_late_event_is_found_whichever_tick_it_is_absorbed_in(verified: Billing) -> None:
    with verified.session() as late:
        late.add_event("a", 5)
        for _ in range(2):
            verified.record("b", 1)
            tick(verified.url, **BOTH)
        late.connection.commit()
        assert len(compared(verified.url, **BOTH)[1]) == 1
        advance(new_run(verified.url, **BOTH))
        assert compared(verified.url, **BOTH)[1] == compared(verified.url, sums=Sums.LOG, **BOTH)[1]

    assert len(compared(verified.url, **BOTH)[1]) == 1


def test_a_late_event_is_found_where_it_is_all_that_is_new(verified: Billing) -> None:
    with verified.session() as late:
        late.add_event("a", 5)
        verify(verified)
        late.connection.commit()

    looked, found = compared(verified.url, **BOTH)

    assert (looked, len(found)) == (Look.CHANGED_KEYS, 1)
    assert found == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


def test_keys_whose_events_were_summed_anew_are_followed_by_a_look_at_every_key(verified: Billing) -> None:
    change(verified, f"delete from billing_usage_events {OF.format('a')}")
    advance(new_run(verified.url, **BOTH))

    assert look(verified) is Look.EVERY_KEY

    verified.query("update recon.horizon set horizon = '9000000000'")
    assert look(verified) is Look.LOG
    assert advance(new_run(verified.url, **BOTH)).rebuilt_because is not None
    assert look(verified) is Look.EVERY_KEY


def test_a_run_over_some_customers_looks_at_every_key_of_theirs_and_remembers_nothing(verified: Billing) -> None:
    change(verified, "update billing_usage_counters set usage_count = 3")
    before = marks(verified, "counters_verified_below")

    looked, found = compared(verified.url, customers=("a",), **BOTH)
    tick(verified.url, customers=("a",), **BOTH)

    assert looked is Look.EVERY_KEY
    assert {row[0] for row in found} == {"a"}
    assert marks(verified, "counters_verified_below") == before
    assert len(compared(verified.url, **BOTH)[1]) == 6


def test_a_verification_that_fails_never_moves_the_mark(verified: Billing) -> None:
    before = marks(verified)
    change(verified, "alter table billing_usage_counters add check (usage_count <> 15) not valid")
    verified.add_event("a", 5)
    verified.add_event("b", 1)

    for _ in range(3):
        tick(verified.url, **BOTH)
        assert marks(verified)[0] == before[0]
        assert mismatch_count(verified.url, **BOTH) == 1
        assert {row[0] for row in compared(verified.url, **BOTH)[1]} == {"a"}


@pytest.mark.parametrize("between", ["deleted", "truncated", "log replaced"])
def test_what_another_run_changed_since_the_verifying_snapshot_is_not_marked_as_verified(
    verified: Billing, between: str
) -> None:
    verified.record("b", 1)
    run = new_run(verified.url, **BOTH)
    run.compare()
    answer = run.verify()
    if between == "deleted":
        verified.query(f"delete from billing_usage_events {OF.format('a')}")
    else:
        verified.query("truncate billing_usage_events")
    if between == "log replaced":
        verified.query("update recon.event_log set identity = 'another'")
    advance(new_run(verified.url, **BOTH))

    run.note_verified(answer)

    assert look(verified) is Look.EVERY_KEY
    assert compared(verified.url, **BOTH)[1] == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


@pytest.mark.parametrize(
    "what", ["a counter set by hand", "an orphan", "a deleted counter", "an event without its counter"]
)
@pytest.mark.parametrize("is_overtaken", [False, True])
def test_what_changes_between_comparison_and_verification_is_found_by_the_next_run(
    verified: Billing, what: str, is_overtaken: bool
) -> None:
    verified.add_event("b", 1)
    run = new_run(verified.url, **BOTH)
    run.compare()
    run.repair()
    if is_overtaken:
        verified.add_event("d", 1)
        tick(verified.url, **BOTH)
    change(verified, *TAMPERING[what][1].split("; "))
    answer = run.verify()
    if answer.mismatch_count == 0:
        run.note_verified(answer)

    found = compared(verified.url, **BOTH)[1]

    assert len(found) > 0
    assert found == compared(verified.url, sums=Sums.LOG, **BOTH)[1]


def test_a_key_that_the_comparison_missed_is_found_by_the_final_check(verified: Billing) -> None:
    """Some of the keys that it found in sync are asked about again, so a mistake of its own would not stay hidden."""
    verified.add_event("a", 5)
    run = new_run(verified.url, **BOTH)
    run.compare()
    verified.query("delete from recon.counter_drift")

    assert run.verify().mismatch_count == 1


def test_the_final_check_asks_again_about_a_bounded_number_of_keys_that_were_in_sync(
    verified: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "SPOT_CHECKED_KEYS", 2)
    for customer in ("a", "b", "c", "d", "e"):
        verified.add_event(customer, 5)
    run = new_run(verified.url, **BOTH)
    run.compare()
    verified.query("delete from recon.counter_drift")
    assert run.verify().mismatch_count == 2

    verified.add_event("f", 5)

    assert run.verify().mismatch_count == 3, "whatever came after the comparison is asked about in any case"


def test_an_older_verification_never_takes_back_a_newer_one(verified: Billing) -> None:
    older, newer = new_run(verified.url, **BOTH), new_run(verified.url, **BOTH)
    verified.record("b", 1)
    older.compare()
    answer = older.verify()
    verified.record("c", 1)
    newer.compare()
    newer.note_verified(newer.verify())
    after = marks(verified)

    older.note_verified(answer)

    assert marks(verified) == after


def test_a_mark_never_passes_events_that_came_between_the_verifying_snapshot_and_the_note(verified: Billing) -> None:
    verified.record("b", 1)
    run = new_run(verified.url, **BOTH)
    run.compare()
    answer = run.verify()
    verified.add_event("a", 5)
    advance(new_run(verified.url, **BOTH))

    run.note_verified(answer)

    assert {row[0] for row in compared(verified.url, **BOTH)[1]} == {"a"}
