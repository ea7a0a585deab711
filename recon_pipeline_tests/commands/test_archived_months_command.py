"""What is asked of an archived month, whose events have left the log, is answered from its archive."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest

from recon_pipeline.faces.serve import archive_reader
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.commands.test_problem_pages import look, pages
from recon_pipeline_tests.reconciliation.billing import MAY, Billing, customers
from recon_pipeline_tests.reconciliation.traffic import wait_until
from recon_pipeline_tests.support.assets import run_assets

ONE, OTHER = customers(2)
IN_MAY = ("--period", "2025-05")
MOST_SECONDS = 100  # on a machine that is busy otherwise
PAGE = f"/customers/{ONE}?period=2025-05"
SESSIONS = """
    select count(*) from pg_stat_activity
    where datname = current_database() and state like 'idle in transaction%'
"""
READS_NOW = "another page reads an archive at this moment: reload this page."


@pytest.fixture
def left(billing: Billing, tmp_path: Path) -> Billing:
    """Two customers used something on the 3rd and the 9th of May, which is archived and not in the log any more."""
    for customer in (ONE, OTHER):
        for day, quantity in ((3, 4), (9, 6)):
            at = datetime(2025, 5, day, 12, tzinfo=UTC)
            billing.add_event(
                customer, quantity, request_id=f"{customer}-{day}-\\t", event_timestamp=at, created_at=at,
                metadata='{"device_id": "gateway-7"}',
            )  # fmt: skip
        billing.add_counter(customer, 10)
    assert run_assets().record.outcome == "clean"
    assert recon("seal", *IN_MAY).exit_code == 0
    before = recon("explain", "--customer", ONE, *IN_MAY, "--json").json["explanations"][0]
    archived = recon("archive", *IN_MAY, "--to", str(tmp_path), "--json").json
    explained = recon("explain", "--customer", ONE, *IN_MAY)
    assert "the log has these events too" in explained.out
    billing.query(archived["statements"][0])
    after = recon("explain", "--customer", ONE, *IN_MAY, "--json").json["explanations"][0]
    same = ("sums", "days", "producers", "bursts", "crossings", "difference", "limit")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (before["events_from"], after["events_from"]) == ("log", "log and archive")
    return billing


def test_a_key_whose_events_left_the_log_is_explained_by_those_of_the_archive(left: Billing) -> None:
    said = recon("explain", "--customer", ONE, *IN_MAY).out
    assert "what follows is of the archive's events and of those that the log has" in " ".join(said.split())
    left.record(ONE, 5, request_id="late")
    (one,) = recon("explain", "--customer", ONE, *IN_MAY, "--json").json["explanations"]
    assert (one["sums"]["usage_count"], one["sums"]["event_count"]) == (15, 3)
    assert left.query("select request_id from billing_usage_events") == [("late",)]


def test_an_archive_that_cannot_be_read_is_said_and_the_rest_is_explained(left: Billing, tmp_path: Path) -> None:
    (file,) = tmp_path.rglob("*.parquet")
    file.unlink()
    (one,) = recon("explain", "--customer", ONE, *IN_MAY, "--json").json["explanations"]
    assert (one["archive_error"], one["events_from"]) == (f"{file} is missing.", "log")
    said = " ".join(recon("explain", "--customer", ONE, *IN_MAY).out.split())
    assert "10: equals the sealed sum" in said
    assert "is missing. What follows is of the log alone, which need not have these events" in said
    assert left.counters(period=MAY) == {ONE: 10, OTHER: 10}


def test_the_page_of_a_customer_shows_the_archived_events_as_the_command_does(
    left: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_reader, "READ_SECONDS", MOST_SECONDS)
    with pages(left.url) as caller:
        page = unescape(look(caller, PAGE).body)
    assert "what follows is of the archive's events and of those that the log has" in page
    assert "10 in 2 events" in page
    assert "gateway-7" in page
    assert left.query("select * from billing_usage_events") == []


def test_a_store_that_does_not_answer_holds_up_one_page_for_a_while_and_no_other(
    left: Billing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = tmp_path.rglob("*.parquet")
    file.unlink()
    os.mkfifo(file)  # whoever opens it waits for somebody who writes
    monkeypatch.setattr(archive_reader, "READ_SECONDS", 4)
    with pages(left.url) as caller, ThreadPoolExecutor(1) as browser:
        waiting = browser.submit(look, caller, PAGE)
        wait_until(lambda: multiprocessing.active_children() != [])
        beside = unescape(look(caller, PAGE).body)
        assert look(caller, "/").status == 200
        assert not waiting.done()
        page = unescape(waiting.result().body)
    assert f"not read: {READS_NOW} What follows is of the log alone" in beside
    assert "not read: that takes more than 4 seconds, and recon explain has no such limit. What follows is" in page
    assert "10: equals the sealed sum" in page
    assert multiprocessing.active_children() == []
    wait_until(lambda: left.value(SESSIONS) == 0)
    monkeypatch.setattr(archive_reader, "READ_SECONDS", MOST_SECONDS)
    with pages(left.url) as caller:
        file.unlink()
        assert f"not read: {file} is missing. What follows" in unescape(look(caller, PAGE).body)
