"""Counts of a lake that overtake each other, or the log: the month follows what is newest, or says what it follows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.lake.counting import OpenLake
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.lake.test_counting_a_lake import count, fill
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing
from recon_pipeline_tests.support.assets import run_assets


def overtaken(monkeypatch: pytest.MonkeyPatch, by: Callable[[], object]) -> ReconError:
    """What is said of a count that this overtakes when its engine has summed the lake."""
    summed = OpenLake.sums
    waiting = [by]

    @contextmanager
    def sums_late(*arguments: Any) -> Iterator[Any]:
        with summed(*arguments) as found:
            while waiting:
                waiting.pop()()
            yield found

    monkeypatch.setattr(OpenLake, "sums", sums_late)
    with pytest.raises(ReconError) as refused:
        count()
    return refused.value


def test_a_count_of_an_older_listing_does_not_replace_one_that_saw_more_of_the_lake(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)

    def count_more() -> None:
        write(lake / "month=2025-05" / "later", [Event("req-9", 100, "b")])
        assert count()[0].is_new

    error = overtaken(monkeypatch, count_more)
    assert str(error) == (
        "Another session counted 2025-05 of stripe:remote_commands, or withdrew its count, after this one had listed "
        "the lake.\n"
        "What that session did stays, and this count was not kept. No counter was changed.\n"
        "What to do: Run this again: it counts only what changed since."
    )
    assert count()[0].is_new is False
    run_assets()
    assert job_billing.counters() == {"a": 10, "b": 103}


def test_a_count_does_not_undo_a_withdrawal_that_came_while_it_was_at_work(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    job_billing.record("a", 7)
    count()
    write(lake / "month=2025-05" / "later", [Event("req-9", 100, "b")])

    def withdraw() -> None:
        database = ReconciledDatabase()
        month = BillingMonth.parse("2025-05")
        lake_counting.withdraw(database.open(), database.settings(), month, withdrawn_by="ada", reason="TICKET-7")

    overtaken(monkeypatch, withdraw)
    run_assets()
    assert job_billing.counters() == {"a": 7}


def test_files_may_be_looked_at_again_for_longer_than_other_transactions_may_pause(
    job_billing: Billing, lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(lake)
    keep, limits = lake_counting.keeping.keep, list[str]()

    def keep_and_ask(connection: Connection, *arguments: Any) -> Any:
        limits.append(connection.exec_driver_sql("show idle_in_transaction_session_timeout").scalar_one())
        return keep(connection, *arguments)

    monkeypatch.setattr(lake_counting.keeping, "keep", keep_and_ask)
    count()
    assert limits == ["30min"], "of a thousand files on object storage each takes some hundredths of a second"


def test_a_month_that_is_named_twice_is_counted_once(job_billing: Billing, lake: Path) -> None:
    fill(lake)
    assert [one.month.key for one in count("2025-05", "2025-05")] == ["2025-05"]
    assert job_billing.value("select count(*) from recon.lake_count") == 1


def test_an_open_month_of_which_the_log_gets_events_after_it_was_counted_says_what_it_follows(
    job_billing: Billing, lake: Path
) -> None:
    write(lake, [Event("req-1", 4, "a", period_start=JUNE[0], period_end=JUNE[1])])
    count("2025-06")
    job_billing.add_event("b", 7, period=JUNE)
    job_billing.add_counter("b", 3, period=JUNE)
    said = recon("count-lake", "--period", "2025-06")
    assert said.out == (
        "Not counted: 2025-06 of stripe:remote_commands: it is not below RECON_LAKE_COMPLETE_UNTIL, and the log in "
        "Postgres has events of it. Its counters follow its earlier count until that is withdrawn: recon count-lake "
        '--period 2025-06 --withdraw --reason "..." lets them follow the log.\n'
    )
    run_assets(first="2025-06", last="2025-06")
    assert job_billing.counters(period=JUNE) == {"b": 3}
    assert recon("count-lake", "--period", "2025-06", "--withdraw", "--reason", "TICKET-8").exit_code == 0
    assert recon("count-lake", "--period", "2025-06").out.endswith("has events of it, which it follows.\n")
    run_assets(first="2025-06", last="2025-06")
    assert job_billing.counters(period=JUNE) == {"b": 7}


def test_a_lake_that_never_had_a_month_sets_no_counter_of_it_to_0(job_billing: Billing, lake: Path) -> None:
    write(lake, [Event("req-1", 4, "a", period_start=JUNE[0], period_end=JUNE[1])])
    job_billing.record("a", 7)
    run_assets()
    said = recon("count-lake", "--period", "2025-05", "--period", "2025-04")
    assert said.out.splitlines()[0] == (
        "Not counted: 2025-05 of stripe:remote_commands: the lake has no event of it, and the log in Postgres has "
        "events of it, which it follows."
    )
    assert said.out.splitlines()[1].startswith("Counted 2025-04 of stripe:remote_commands: 0 keys, 0 events, 0 units; ")
    run_assets()
    assert job_billing.counters() == {"a": 7}


def test_a_month_that_left_the_lake_keeps_its_count_until_a_person_withdraws_it(
    job_billing: Billing, lake: Path
) -> None:
    fill(lake)
    count()
    run_assets()
    for file in lake.rglob("*.parquet"):
        file.unlink()
    write(lake, [Event("req-1", 4, "a", period_start=JUNE[0], period_end=JUNE[1])])
    assert recon("count-lake", "--period", "2025-05").out == (
        "Not counted: 2025-05 of stripe:remote_commands: the lake has no event of it any more, and its earlier count "
        'of 3 events stays. If that is right: recon count-lake --period 2025-05 --withdraw --reason "...", then count '
        "it again.\n"
    )
    run_assets()
    assert job_billing.counters() == {"a": 10, "b": 3}
    assert recon("count-lake", "--period", "2025-05", "--withdraw", "--reason", "TICKET-9").exit_code == 0
    assert recon("count-lake", "--period", "2025-05").out.startswith(
        "Counted 2025-05 of stripe:remote_commands: 0 keys"
    )
