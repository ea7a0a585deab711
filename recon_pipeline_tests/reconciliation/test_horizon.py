"""Aggregates advance from horizon to horizon: each event is added exactly once, however late it is committed."""

import itertools
from typing import Any

import pytest

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing
from recon_pipeline_tests.reconciliation.conftest import PrivateServer, install_increments
from recon_pipeline_tests.reconciliation.increments import (
    advance,
    aggregated,
    compared,
    event_sums,
    is_exact,
    once,
    wrong_totals,
)
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run, reconcile
from recon_pipeline_tests.reconciliation.traffic import PRODUCT, wait_until

HOUR_SECONDS = 3_600
DECIDING = ("note_event_log", "lock_event_log", "log_position")
KILL = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = %s
"""


@pytest.fixture
def built(incremental_billing: Billing) -> Billing:
    """Customer `a` has used 1, and that is in the aggregates."""
    incremental_billing.record("a", 1)
    assert advance(new_run(incremental_billing.url)).built_months == ("2025-05",)
    return incremental_billing


def advanced(billing: Billing) -> Advance:
    return advance(new_run(billing.url))


@pytest.mark.parametrize("ticks", [0, 1, 3])
def test_events_of_a_transaction_that_commits_late_are_added_once(built: Billing, ticks: int) -> None:
    with built.session() as late:
        late.add_event("a", 10)
        for _ in range(ticks):
            built.add_event("b", 100)
            advanced(built)
            assert is_exact(built)
        late.add_event("a", 1_000)
        late.connection.commit()

    assert is_exact(built), "committed, and beside the aggregates"
    assert advanced(built).absorbed_count == 2 + ticks
    assert is_exact(built, absorbed=True)
    assert advanced(built) == Advance()
    assert aggregated(built)["a"] == 1_011


def test_a_transaction_older_than_the_aggregates_themselves_is_added_once(incremental_billing: Billing) -> None:
    with incremental_billing.session() as late:
        late.add_event("a", 10)
        incremental_billing.add_event("a", 1)
        advanced(incremental_billing)
        assert is_exact(incremental_billing)
        late.connection.commit()

    advanced(incremental_billing)

    assert is_exact(incremental_billing, absorbed=True)
    assert aggregated(incremental_billing) == {"a": 11}


def test_events_from_before_the_log_had_transaction_ids_are_added_once(incremental_billing: Billing) -> None:
    for quantity in (1, 10):
        incremental_billing.add_event("a", quantity, ingest_xid=None)
    for _ in range(2):
        advanced(incremental_billing)
        assert is_exact(incremental_billing, absorbed=True)
    incremental_billing.query("delete from billing_usage_events where quantity = 10")

    advanced(incremental_billing)

    assert is_exact(incremental_billing, absorbed=True)
    assert aggregated(incremental_billing) == {"a": 1}


def test_transactions_that_end_in_another_order_than_they_began_are_each_added_once(built: Billing) -> None:
    with built.session() as first, built.session() as second, built.session() as third:
        for quantity, session in ((10, first), (100, second), (1_000, third)):
            session.add_event("a", quantity)
        for session in (third, first, second):
            session.connection.commit()
            advanced(built)
            assert is_exact(built)

    assert aggregated(built) == {"a": 1_111}


def test_a_transaction_that_commits_before_any_statement_of_a_run_is_added_once(built: Billing) -> None:
    june: dict[str, Any] = {"last": "2025-06"}
    names: list[str] = []
    for number in itertools.count():
        built.query("delete from recon.usage_month where partition = '2025-06'")
        statements_seen = list[str]()
        with built.session() as late:
            late.add_event("a", 10)
            late.add_event("j", 10, period=JUNE)
            built.add_event("a", 1)

            def commit(
                name: str, number: int = number, late: Billing = late, statements_seen: list[str] = statements_seen
            ) -> None:
                statements_seen.append(name)
                if len(statements_seen) == number + 1:
                    late.connection.commit()

            advance(new_run(built.url, **june), before=commit)
            late.connection.commit()
        assert is_exact(built), f"before statement {number}"
        assert event_sums(new_run(built.url, **june))["j"] == 10 * (number + 1)
        advance(new_run(built.url, **june))
        stored = event_sums(new_run(built.url, **june))
        assert aggregated(built) == stored == {"a": 1 + 11 * (number + 1), "j": 10 * (number + 1)}
        assert wrong_totals(built) == []
        if len(statements_seen) <= number:
            names = statements_seen
            break
    # A month with aggregates is built twice: first from all of its events, which shows what left the log.
    build = ["put_sums", "total_months"]
    assert names == [*DECIDING, "add_to_aggregates", *build, *build, "take_notes", "move_horizon"]


def test_events_that_are_rolled_back_are_never_added(built: Billing) -> None:
    with built.session() as late:
        late.add_event("a", 10)
        advanced(built)
        late.connection.rollback()

    assert advanced(built).absorbed_count == 0
    assert is_exact(built, absorbed=True)


def test_of_a_transaction_with_savepoints_what_was_not_rolled_back_is_added_once(built: Billing) -> None:
    with built.session() as late:
        late.query("savepoint before_anything")
        late.add_event("a", 10)
        late.query("savepoint gone")
        late.add_event("a", 100)
        late.query("rollback to gone")
        built.add_event("b", 5)
        advanced(built)
        late.query("savepoint kept")
        late.add_event("a", 1_000)
        late.query("release kept")
        assert (
            len(late.query("select distinct ingest_xid from billing_usage_events where gateway_customer_id = 'a'")) == 2
        )
        late.connection.commit()

    assert is_exact(built)
    assert advanced(built).absorbed_count == 3
    assert is_exact(built, absorbed=True)
    assert aggregated(built) == {"a": 1_011, "b": 5}


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_prepared_transaction_stops_the_horizon_and_is_added_once(private_server: PrivateServer, end: str) -> None:
    with private_server.billing() as billing:
        billing.query("alter system set max_prepared_transactions = 8")
    private_server.stop()
    private_server.start()
    with private_server.reopened(billing) as billing:
        install_increments(billing.url)
        advanced(billing)
        with billing.session() as late:
            late.add_event("a", 10)
            late.query("prepare transaction 'of the application'")
        billing.add_event("a", 1)
        advanced(billing)

        run = new_run(billing.url)
        with run.database.transaction("REPEATABLE READ") as connection:
            oldest = horizons.oldest_transaction(connection)
        assert oldest is not None
        assert (oldest.prepared_as, oldest.pid) == ("of the application", None)
        assert is_exact(billing)
        assert event_sums(run) == {"a": 1}

        billing.query(f"{end} prepared 'of the application'")
        assert is_exact(billing)
        advanced(billing)
        assert is_exact(billing, absorbed=True)
        assert aggregated(billing) == {"a": 11 if end == "commit" else 1}


def test_a_stopped_horizon_still_gives_exact_sums_and_the_open_transaction_is_named(built: Billing) -> None:
    with built.session(application_name="forgotten") as holder:
        holder.query("select pg_current_xact_id()")
        for customer in ("a", "b"):
            built.record(customer, 7)
        assert advanced(built).absorbed_count == 0
        assert is_exact(built)
        assert mismatch_count(built.url) == 0
        built.set_counter("b", 3)
        assert reconcile(built.url).repaired == 1
        assert built.counters() == {"a": 8, "b": 7}
        with new_run(built.url).database.transaction("REPEATABLE READ") as connection:
            oldest = horizons.oldest_transaction(connection)
        pid = holder.connection.info.backend_pid

    assert oldest is not None
    assert (oldest.pid, oldest.application, oldest.state) == (pid, "forgotten", "idle in transaction")
    assert oldest.prepared_as is None
    assert oldest.seconds is not None
    assert 0 < oldest.seconds < HOUR_SECONDS


def test_a_run_that_meets_another_does_not_wait_says_so_and_compares_exactly(built: Billing) -> None:
    met: list[Advance] = []
    built.add_event("a", 10)
    built.add_counter("orphan", 3)

    def meet() -> None:
        other = new_run(built.url)
        met.append(advance(other))
        assert event_sums(other) == {"a": 11}
        assert compared(built.url)[1] == {
            ("a", "2025-05-01 00:00:00+00", "under", "1", "11"),
            ("orphan", "2025-05-01 00:00:00+00", "orphan", "3", "0"),
        }

    done = advance(new_run(built.url), before=once("move_horizon", meet))

    assert met == [Advance(waits_because="another run is adding events to the aggregates")]
    assert done.absorbed_count == 1
    assert is_exact(built, absorbed=True)


def test_two_first_runs_at_once_do_not_wait_for_each_other(incremental_billing: Billing) -> None:
    met: list[Advance] = []
    incremental_billing.add_event("a", 10)

    advance(
        new_run(incremental_billing.url),
        before=once("move_horizon", lambda: met.append(advanced(incremental_billing))),
    )

    assert met[0].waits_because is not None
    assert is_exact(incremental_billing, absorbed=True)


@pytest.mark.parametrize("moment", ["note_event_log", "lock_event_log"])
def test_a_run_that_is_overtaken_before_it_has_the_lock_adds_what_is_left_and_rebuilds_nothing(
    built: Billing, moment: str
) -> None:
    def overtake() -> None:
        built.add_event("a", 10)
        assert advanced(built).absorbed_count == 1
        built.add_event("a", 100)

    assert advance(new_run(built.url), before=once(moment, overtake)) == Advance(absorbed_count=1)
    assert is_exact(built, absorbed=True)


@pytest.mark.parametrize(
    "moment", [*DECIDING, "add_to_aggregates", "put_sums", "total_months", "take_notes", "move_horizon"]
)
def test_a_run_that_is_killed_before_it_has_moved_the_horizon_adds_nothing(built: Billing, moment: str) -> None:
    built.add_event("a", 10)
    built.add_event("j", 10, period=JUNE)
    built.add_event("gone", 10)
    built.query("delete from billing_usage_events where gateway_customer_id = 'gone'")
    before = aggregated(built)

    def kill() -> None:
        built.query(KILL, PRODUCT)

    with pytest.raises(ReconError):
        advance(new_run(built.url, last="2025-06"), before=once(moment, kill))

    wait_until(lambda: advanced(built).waits_because is None)
    assert before == {"a": 1}
    assert is_exact(built, absorbed=True)
    assert advance(new_run(built.url, last="2025-06")).built_months == ("2025-06",)
    assert wrong_totals(built) == []
    assert aggregated(built) == {"a": 11, "j": 10}


def test_a_month_that_is_built_later_contains_the_events_of_every_time(built: Billing) -> None:
    with built.session() as late:
        late.add_event("j", 1_000, period=JUNE)
        built.add_event("j", 10, period=JUNE)
        advanced(built)
        built.add_event("j", 100, period=JUNE)
        assert advance(new_run(built.url, last="2025-06")).built_months == ("2025-06",)
        assert event_sums(new_run(built.url, last="2025-06")) == {"a": 1, "j": 110}
        late.connection.commit()

    advanced(built)

    assert aggregated(built) == {"a": 1, "j": 1_110}


def test_a_month_that_was_verified_while_another_run_kept_it_from_being_built_is_built_by_the_next(
    built: Billing,
) -> None:
    built.record("j", 10, period=JUNE)
    run = new_run(built.url, last="2025-06")
    with built.session() as other:
        other.query("select from recon.event_log for update")
        run.compare()
        answer = run.verify()
        other.connection.rollback()
    run.note_verified(answer)

    assert advance(new_run(built.url, last="2025-06")).built_months == ("2025-06",)
    assert aggregated(built) == {"a": 1, "j": 10}
    assert wrong_totals(built) == []
