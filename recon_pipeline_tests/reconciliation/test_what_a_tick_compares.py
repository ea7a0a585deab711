"""A tick compares what changed since it was verified: never at less, and at every key where it cannot tell that."""

from typing import Any

import pytest

from recon_pipeline.store.counters.compare import Coverage
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing
from recon_pipeline_tests.reconciliation.conftest import install_increments
from recon_pipeline_tests.reconciliation.increments import advance, aggregated, compared, tick
from recon_pipeline_tests.reconciliation.product import Run, mismatch_count, new_run

BOTH: dict[str, Any] = {"last": "2025-06"}
OF = "where gateway_customer_id = '{}'"
ORPHAN = (
    "insert into billing_usage_counters (gateway_name, gateway_customer_id, usage_type, period_start, period_end, "
    "usage_count) select gateway_name, 'orphan', usage_type, period_start, period_end, {} "
    "from billing_usage_counters limit 1"
)
DELETE = f"delete from billing_usage_counters {OF.format('c')}"
SET_MAY = f"update {{}} set usage_count = {{}} {OF.format('a')} and period_start < '2025-05-15'"
IN_SYNC: tuple[Coverage, set[tuple[Any, ...]]] = (Coverage.CHANGED_KEYS, set())


@pytest.fixture
def verified(incremental_billing: Billing) -> Billing:
    """Customers `a` to `d` have used 10 in May and in June, which was verified."""
    for customer in "abcd":
        for period in (MAY, JUNE):
            incremental_billing.record(customer, 10, period=period)
    tick(incremental_billing.url, **BOTH)
    assert compared(incremental_billing.url, **BOTH) == IN_SYNC
    return incremental_billing


def coverage(billing: Billing) -> Coverage:
    return compared(billing.url, **BOTH)[0]


def change(billing: Billing, *statements: str) -> None:
    """Change something in a session of its own."""
    with billing.session(autocommit=True) as session:
        for statement in statements:
            session.query(statement)


def marks(billing: Billing, columns: str = "verified_below, counters_verified_below") -> list[Any]:
    return billing.query(f"select partition, {columns} from recon.usage_month order by 1")


def open_keys(billing: Billing) -> dict[str, str]:
    """Why keys do not count as verified, by customer."""
    return dict(billing.query("select gateway_customer_id, reason from recon.open_key order by 1"))


def noted(billing: Billing) -> list[str]:
    """Customers with a key that is to be summed anew."""
    return [row[0] for row in billing.query("select gateway_customer_id from recon.invalidated_key order by 1")]


def stale_aggregates(billing: Billing, run: Run) -> int | None:
    """What the record of a run says of aggregates that were wrong."""
    return billing.value(
        "select aggregates_differing from recon.reconciliation_run where run_id = %s", run.question.run_id
    )


TAMPERING: dict[str, tuple[Coverage, str]] = {
    "a counter set by hand": (
        Coverage.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 3 {OF.format('a')}",
    ),
    "a counter changed by another number": (
        Coverage.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 15 {OF.format('b')} and period_start > '2025-05-15'",
    ),
    "a counter set to 0": (
        Coverage.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 0 {OF.format('b')}",
    ),
    "an orphan": (Coverage.CHANGED_KEYS, ORPHAN.format(7)),
    "a counter changed under a savepoint": (
        Coverage.CHANGED_KEYS,
        "begin; savepoint s; update billing_usage_counters set usage_count = 4 "
        f"{OF.format('a')}; release s; savepoint t; delete from billing_usage_events; rollback to t; commit",
    ),
    "a counter set after one was deleted": (
        Coverage.EVERY_KEY,
        f"{DELETE}; update billing_usage_counters set usage_count = 3",
    ),
    "a deleted counter": (Coverage.EVERY_KEY, DELETE),
    "a deleted counter of one month": (Coverage.EVERY_KEY, f"{DELETE} and period_start > '2025-05-15'"),
    "a counter deleted while an orphan is inserted": (
        Coverage.EVERY_KEY,
        f"begin; {DELETE} and period_start > '2025-05-15'; {ORPHAN.format(10)}; commit",
    ),
    "a counter deleted and made anew": (
        Coverage.CHANGED_KEYS,
        f"with gone as ({DELETE} returning *) insert into billing_usage_counters select * from gone",
    ),
    "a counter moved to another key": (
        Coverage.EVERY_KEY,
        f"update billing_usage_counters set gateway_customer_id = 'z', usage_count = usage_count + 1 {OF.format('a')}",
    ),
    "a counter moved to the place of a deleted one": (
        Coverage.EVERY_KEY,
        f"begin; {DELETE}; update billing_usage_counters set gateway_customer_id = 'c', usage_count = usage_count + 1 "
        f"{OF.format('a')}; commit",
    ),
    "two counters that changed places": (
        Coverage.CHANGED_KEYS,
        f"update billing_usage_counters set usage_count = 7 {OF.format('a')}; "
        f"begin; update billing_usage_counters set gateway_customer_id = 'z' {OF.format('a')}; "
        f"update billing_usage_counters set gateway_customer_id = 'a' {OF.format('b')}; "
        f"update billing_usage_counters set gateway_customer_id = 'b' {OF.format('z')}; commit",
    ),
    "truncated counters": (Coverage.EVERY_KEY, "truncate billing_usage_counters"),
    "rewritten counters": (Coverage.CHANGED_KEYS, "vacuum full billing_usage_counters"),
    "frozen counters": (Coverage.CHANGED_KEYS, "vacuum (freeze) billing_usage_counters"),
    "an event without its counter": (
        Coverage.CHANGED_KEYS,
        "insert into billing_usage_events (gateway_name, gateway_customer_id, usage_type, request_id, period_start, "
        "period_end) select gateway_name, 'new', usage_type, 'new', period_start, period_end "
        "from billing_usage_counters limit 1",
    ),
    "an erased customer whose counters stay": (
        Coverage.CHANGED_KEYS,
        f"delete from billing_usage_events {OF.format('a')}",
    ),
    "events changed by hand": (
        Coverage.CHANGED_KEYS,
        f"update billing_usage_events set quantity = quantity + 1 {OF.format('d')}",
    ),
    "a truncated log": (Coverage.EVERY_KEY, "truncate billing_usage_events"),
}
HARMLESS = ("rewritten counters", "frozen counters", "a counter deleted and made anew")


@pytest.mark.parametrize("what", TAMPERING)
def test_what_was_changed_is_found_as_by_comparing_everything(verified: Billing, what: str) -> None:
    expected, statements = TAMPERING[what]

    change(verified, *statements.split("; "))

    looked, found = compared(verified.url, **BOTH)
    assert looked is expected
    assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]
    assert len(found) == 0 if what in HARMLESS else len(found) > 0
    tick(verified.url, **BOTH)
    assert compared(verified.url, mode=Mode.FULL, **BOTH)[1] == set()


def test_a_counter_changed_by_a_transaction_that_was_open_when_it_was_verified_is_found(verified: Billing) -> None:
    with verified.session() as late:
        late.query(f"update billing_usage_counters set usage_count = 3 {OF.format('a')}")
        change(verified, f"update billing_usage_counters set usage_count = usage_count {OF.format('b')}")
        tick(verified.url, **BOTH)
        tick(verified.url, **BOTH)
        late.connection.commit()

    looked, found = compared(verified.url, **BOTH)

    assert looked is Coverage.CHANGED_KEYS
    assert {row[:3:2] for row in found} == {("a", "under")}
    assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]


@pytest.mark.parametrize("table", ["counters", "events"])
def test_a_deletion_by_a_transaction_that_was_open_when_it_was_verified_is_found(verified: Billing, table: str) -> None:
    with verified.session() as late:
        late.query(f"delete from billing_usage_{table} {OF.format('a')}")
        verified.record("b", 1)
        tick(verified.url, **BOTH)
        tick(verified.url, **BOTH)
        late.connection.commit()

    found = compared(verified.url, **BOTH)[1]

    assert {row[:3:2] for row in found} == {("a", "missing" if table == "counters" else "orphan")}
    assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]


def test_a_late_event_is_found_whichever_tick_it_is_absorbed_in(verified: Billing) -> None:
    with verified.session() as late:
        late.add_event("a", 5)
        for _ in range(2):
            verified.record("b", 1)
            tick(verified.url, **BOTH)
        late.connection.commit()
        assert len(compared(verified.url, **BOTH)[1]) == 1
        advance(new_run(verified.url, **BOTH))
        assert compared(verified.url, **BOTH)[1] == compared(verified.url, mode=Mode.FULL, **BOTH)[1]

    assert len(compared(verified.url, **BOTH)[1]) == 1


def test_a_late_event_is_found_where_it_is_all_that_is_new(verified: Billing) -> None:
    with verified.session() as late:
        late.add_event("a", 5)
        for _ in range(2):
            tick(verified.url, **BOTH)
        late.connection.commit()

    looked, found = compared(verified.url, **BOTH)

    assert (looked, len(found)) == (Coverage.CHANGED_KEYS, 1)
    assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]


def test_keys_whose_events_were_summed_anew_are_looked_at_until_they_match(verified: Billing) -> None:
    change(verified, f"delete from billing_usage_events {OF.format('a')}")
    for _ in range(2):
        advance(new_run(verified.url, **BOTH))
        looked, found = compared(verified.url, **BOTH)
        assert looked is Coverage.CHANGED_KEYS
        assert {row[:3:2] for row in found} == {("a", "orphan")}
        assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]
        assert open_keys(verified) == {"a": "changed"}

    tick(verified.url, **BOTH)

    assert open_keys(verified) == {}
    assert compared(verified.url, **BOTH) == IN_SYNC


def test_aggregates_of_another_log_are_followed_by_a_look_at_every_key(verified: Billing) -> None:
    verified.query("update recon.event_log set horizon = '9000000000'")
    assert coverage(verified) is Coverage.EVERY_KEY
    assert advance(new_run(verified.url, **BOTH)).rebuilt_because is not None
    assert coverage(verified) is Coverage.EVERY_KEY


def test_a_run_over_some_customers_compares_every_key_of_theirs_and_records_nothing(verified: Billing) -> None:
    change(verified, "update billing_usage_counters set usage_count = 3")
    before = marks(verified, "counters_verified_below")

    looked, found = compared(verified.url, customers=("a",), **BOTH)
    tick(verified.url, customers=("a",), **BOTH)

    assert looked is Coverage.EVERY_KEY
    assert {row[0] for row in found} == {"a"}
    assert marks(verified, "counters_verified_below") == before
    assert len(compared(verified.url, **BOTH)[1]) == 6


def test_a_key_that_cannot_be_repaired_stays_open_and_all_others_count_as_verified(verified: Billing) -> None:
    """One such key kept the mark from moving, so that each tick read everything since, for ever."""
    change(verified, "alter table billing_usage_counters add check (usage_count <> 15) not valid")
    verified.add_event("a", 5)
    verified.add_event("b", 1)

    for _ in range(3):
        before = marks(verified, "verified_below::text::bigint, counters_verified_below::text::bigint")
        verified.record("c", 1)
        tick(verified.url, **BOTH)
        after = marks(verified, "verified_below::text::bigint, counters_verified_below::text::bigint")
        assert all(
            new > old
            for row, earlier in zip(after, before, strict=True)
            for new, old in zip(row[1:], earlier[1:], strict=True)
        )
        assert open_keys(verified) == {"a": "failed"}
        assert mismatch_count(verified.url, **BOTH) == 1
        looked, found = compared(verified.url, **BOTH)
        assert looked is Coverage.CHANGED_KEYS
        assert {row[0] for row in found} == {"a"}

    change(verified, "alter table billing_usage_counters drop constraint billing_usage_counters_usage_count_check1")
    tick(verified.url, **BOTH)
    assert open_keys(verified) == {}
    assert compared(verified.url, **BOTH) == IN_SYNC
    assert compared(verified.url, mode=Mode.FULL, **BOTH) == (Coverage.EVERY_KEY, set())


OTHER_LOG = """
    alter table billing_usage_events rename to elsewhere;
    create table billing_usage_events (like elsewhere including all);
    insert into billing_usage_events select * from elsewhere;
    update billing_usage_events set quantity = quantity + 1 where gateway_customer_id = 'a'
"""


@pytest.mark.parametrize(
    ("between", "looked"),
    [
        (f"delete from billing_usage_events {OF.format('a')}", Coverage.CHANGED_KEYS),
        ("truncate billing_usage_events", Coverage.EVERY_KEY),
        ("truncate billing_usage_events; update recon.event_log set identity = 'another'", Coverage.EVERY_KEY),
        (OTHER_LOG, Coverage.EVERY_KEY),
    ],
)
def test_what_another_run_changed_since_the_verifying_snapshot_is_not_marked_as_verified(
    verified: Billing, between: str, looked: Coverage
) -> None:
    verified.record("b", 1)
    run = new_run(verified.url, **BOTH)
    run.compare()
    answer = run.verify()
    verified.connection.execute(between.encode())
    install_increments(verified.url)
    advance(new_run(verified.url, **BOTH))

    run.note_verified(answer)

    found = compared(verified.url, **BOTH)
    assert found == (looked, compared(verified.url, mode=Mode.FULL, **BOTH)[1])
    assert {row[0] for row in found[1]} >= {"a"}


@pytest.mark.parametrize(
    "what",
    [
        "a counter set by hand",
        "an orphan",
        "a deleted counter",
        "a counter deleted while an orphan is inserted",
        "a counter moved to another key",
        "an event without its counter",
        "an erased customer whose counters stay",
        "events changed by hand",
    ],
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
    run.note_verified(run.verify())

    found = compared(verified.url, **BOTH)[1]

    assert len(found) > 0
    assert found == compared(verified.url, mode=Mode.FULL, **BOTH)[1]


def test_a_key_that_the_comparison_missed_is_found_by_the_final_check(verified: Billing) -> None:
    """It asks about keys with new events by a statement of its own, so a mistake of the other would not stay hidden."""
    verified.add_event("a", 5)
    run = new_run(verified.url, **BOTH)
    run.compare()
    verified.query("delete from recon.counter_drift")

    assert run.verify().mismatch_count == 1


def test_what_a_run_found_drifted_is_asked_of_the_log_again_though_its_counter_fits_an_aggregate_that_is_wrong(
    verified: Billing,
) -> None:
    """What a repair would leave that had believed the aggregate."""
    change(verified, SET_MAY.format("billing_usage_counters", 7))
    run = new_run(verified.url, **BOTH)
    assert run.compare().summary.drift_count == 1
    change(verified, SET_MAY.format("recon.usage_aggregate", 5), SET_MAY.format("billing_usage_counters", 5))

    assert run.verify().mismatch_count == 1


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


@pytest.mark.parametrize("transaction", [None, "5"])
def test_an_event_with_a_transaction_id_that_is_not_its_own_makes_no_drift_and_its_key_is_summed_anew(
    verified: Billing, transaction: str | None
) -> None:
    """An ORM that maps the column, a copy, postgres_fdw: a tick lowered a right counter and called that clean."""
    verified.add_event("a", 5, ingest_xid=transaction)
    change(
        verified, f"update billing_usage_counters set usage_count = 15 {OF.format('a')} and period_start < '2025-05-15'"
    )

    run = tick(verified.url, **BOTH)

    assert run.found[-1].summary.drift_count == 0
    assert (verified.ledger(), verified.counters()["a"]) == ([], 15)
    assert (stale_aggregates(verified, run), noted(verified)) == (1, ["a"])
    assert aggregated(verified)["a"] == 20

    again = tick(verified.url, **BOTH)
    assert again.found[-1].summary.drift_count == 0
    assert (stale_aggregates(verified, again), noted(verified), open_keys(verified)) == (None, [], {})
    assert aggregated(verified)["a"] == 25
    assert verified.ledger() == []
    assert compared(verified.url, **BOTH) == IN_SYNC


@pytest.mark.parametrize("transaction", [None, "5"])
def test_a_wrong_counter_is_set_to_what_the_log_says_also_where_its_aggregate_is_wrong(
    verified: Billing, transaction: str | None
) -> None:
    verified.add_event("a", 5, ingest_xid=transaction)
    verified.set_counter("a", 3)

    tick(verified.url, **BOTH)

    assert verified.ledger() == [("a", "under", 3, 15), ("a", "under", 3, 10)]
    assert noted(verified) == ["a"]
    tick(verified.url, **BOTH)
    assert aggregated(verified)["a"] == 25
    assert len(verified.ledger()) == 2
    assert compared(verified.url, **BOTH) == IN_SYNC


def test_an_event_with_a_transaction_id_of_the_future_is_counted_once(verified: Billing) -> None:
    verified.add_event("a", 5, ingest_xid="999999999999")

    for _ in range(3):
        tick(verified.url, **BOTH)
        assert verified.counters()["a"] == 15
        assert compared(verified.url, **BOTH) == IN_SYNC

    assert verified.ledger() == [("a", "under", 10, 15)]


def test_an_aggregate_that_was_changed_by_hand_never_raises_an_alarm_nor_changes_a_counter(verified: Billing) -> None:
    verified.query(f"update recon.usage_aggregate set usage_count = 99 {OF.format('a')}")
    verified.query(f"delete from recon.usage_aggregate {OF.format('b')} and period_start < '2025-05-15'")
    for customer in "abc":
        verified.record(customer, 1)

    run = tick(verified.url, **BOTH)

    assert (run.found[-1].summary.drift_count, verified.ledger()) == (0, [])
    for _ in range(2):
        run = tick(verified.url, **BOTH)
        assert (run.found[-1].summary.drift_count, verified.ledger()) == (0, [])
    assert compared(verified.url, mode=Mode.FULL, **BOTH) == (Coverage.EVERY_KEY, set())
