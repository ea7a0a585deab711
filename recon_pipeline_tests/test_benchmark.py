"""`recon benchmark` at a size that takes a second: what it measures and says, not how fast it was."""

import io

import psycopg
import pytest
from rich.console import Console

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark import run_benchmark

EVENTS, COUNTERS = 5_000, 500


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_measures_both_sides_as_often_and_leaves_every_counter_right(
    empty_database_url: str, console: Console
) -> None:
    report = run_benchmark(empty_database_url, events=EVENTS, counters=COUNTERS, console=console, rounds=2)

    assert (report.events, report.counters) == (EVENTS, COUNTERS)
    assert report.mismatch_count == 0
    assert report.repaired_count == COUNTERS
    assert report.longest_chunk_seconds > 0
    assert report.peak_memory_mb > 10
    assert len(report.measurements) == 12
    assert all(len(row.seconds) >= 2 and row.best_seconds > 0 for row in report.measurements)
    assert [bar.limit for bar in report.bars] == [1.2, 3.0, 400.0]
    assert all(bar.value > 0 for bar in report.bars)
    assert any("Hash Full Join" in node or "Merge Full Join" in node for node in report.plan)


def test_it_prints_times_ratios_and_whether_each_bar_was_met(empty_database_url: str, console: Console) -> None:
    report = run_benchmark(empty_database_url, events=600, counters=60, console=console, rounds=1)

    shown = printed(console)
    for row in report.measurements:
        assert row.name in shown
    assert shown.count("met") == len(report.bars)
    assert "0 counters differ from the log at the end" in shown


def test_it_leaves_no_database_behind_and_the_given_one_untouched(empty_database_url: str, console: Console) -> None:
    run_benchmark(empty_database_url, events=600, counters=60, console=console, rounds=1)

    with psycopg.connect(empty_database_url) as connection:
        left = connection.execute("select datname from pg_database where datname like 'recon_benchmark_%'").fetchall()
        tables = connection.execute("select count(*) from pg_class where relname like 'billing_%'").fetchone()
    assert left == []
    assert tables == (0,)


def test_fewer_events_than_counters_are_refused_before_anything_is_made(console: Console) -> None:
    with pytest.raises(ConfigurationError, match="cannot fill"):
        run_benchmark("postgresql://nobody@127.0.0.1:1/nothing", events=5, counters=6, console=console)
