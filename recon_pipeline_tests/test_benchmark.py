"""`recon benchmark` at sizes that take a second: what it measures and says, not how fast it was."""

import io
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import yaml
from rich.console import Console

from recon_pipeline.core.errors import ConfigurationError, ReconError, SchemaVersionError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.benchmark import BenchmarkReport, by_hand, idle, late_events, run_benchmark
from recon_pipeline.faces.benchmark.archive import ARCHIVE, COPY, PROVE, measure_archive
from recon_pipeline.faces.benchmark.export_forms import FORMS, Form
from recon_pipeline.faces.benchmark.lake import ALONE, COMPARE, COUNT, measure_lake
from recon_pipeline.faces.benchmark.late_events import measure_backfill
from recon_pipeline.faces.benchmark.parity import GROUP_BY, LOG_SIDE, RECORDS, WHOLE, measure_parity
from recon_pipeline.faces.benchmark.scratch import fill
from recon_pipeline.faces.benchmark.watched_dev import Watch
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.settings import read_settings
from recon_pipeline.store.counters.seal_records import NotSealedError
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.backfill.reading import readings

pytestmark = pytest.mark.long

SIZES, COUNTERS = (3_000, 6_000), 300


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def measured(url: str, console: Console, chart: Path | None = None) -> BenchmarkReport:
    return run_benchmark(
        url, events=SIZES, counters=COUNTERS, console=console, rounds=1, chart=chart, recorder_seconds=1
    )


def test_it_measures_both_sides_says_so_draws_a_chart_and_leaves_nothing_behind(
    empty_database_url: str, console: Console, tmp_path: Path
) -> None:
    report = measured(empty_database_url, console, tmp_path / "ticks.svg")

    for size, events in zip(report.sizes, SIZES, strict=True):
        assert (size.events, size.counters) == (events, COUNTERS)
        assert size.mismatch_count == 0
        assert size.repaired_count == COUNTERS
        assert size.longest_lock_seconds > 0
        assert size.peak_memory_mb > 10
        assert len(size.measurements) == 15
        assert all(row.least > 0 for row in size.measurements)
        assert [bar.limit for bar in size.bars] == [400]
    assert all(row.most > 0 for row in report.rates)
    assert [bar.limit for bar in report.bars] == [0.9, 1.3, 1.2]
    assert all(bar.value > 0 for bar in report.bars)

    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for row in (*report.sizes[0].measurements, *report.rates):
        assert row.name in shown
    assert shown.count("met") == len([*report.bars, *(bar for size in report.sizes for bar in size.bars)])
    assert "0 counters differ from the log at the end" in shown

    drawn = (tmp_path / "ticks.svg").read_text()
    assert "<svg" in drawn

    assert_nothing_is_left(empty_database_url)


def test_a_backfill_is_measured_as_the_command_that_a_person_runs_beside_one_by_hand(
    empty_database_url: str, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_events, "FORMS", FORMS[-1:])  # each is a process more
    report = measure_backfill(empty_database_url, rows=2_000, events=600, counters=60, console=console, rounds=1)

    assert (report.rows, report.events, report.counters) == (2_000, 600, 60)
    assert len(report.measurements) == 6
    assert all(row.least > 0 for row in report.measurements)
    (memory,) = report.bars
    assert 20 < memory.value < 1_000
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for row in report.measurements:
        assert row.name in shown
    assert shown.count("met") == 1
    assert_nothing_is_left(empty_database_url)


def test_short_commands_are_measured_as_processes_beside_the_imports_that_each_needs(
    empty_database_url: str, dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle, "SHORT_COMMANDS", {name: idle.SHORT_COMMANDS[name] for name in ("hold", "status")})
    fill(BillingDatabase(empty_database_url), events=600, counters=60, seed=1)
    environment = idle._environment(tmp_path, empty_database_url, dagster_database_url)
    times = idle._time_commands(environment, rounds=1)
    assert set(times) == {idle.IMPORTS, "hold", "status"}
    assert all(took > 0 for took in times.values())
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute("select count(*) from recon.hold").fetchone() == (1,)


def test_what_an_idle_installation_costs_is_held_to_its_promises() -> None:
    watched = Watch({"daemon": 10.0, "webserver": 4.0}, tick_seconds=0.5)
    rows = {"job_ticks": 20, "event_logs": 26, "asset_check_executions": 2, "runs": 0}
    bars = {bar.name: bar for bar in idle._bars({"pause": 3.1}, 1.0, watched, rows, idle_ticks=2, seconds=600)}
    assert [(bar.value, bar.limit, bar.is_met) for bar in bars.values()] == [
        (3.1, 3, False),
        (0.5, 0.5, True),
        (13.0, 12, False),
        (7.0, 7, True),
        (2.0, 2, True),
    ]


def assert_nothing_is_left(url: str) -> None:
    with psycopg.connect(url) as connection:
        left = connection.execute("select datname from pg_database where datname like 'recon_benchmark_%'").fetchall()
        tables = connection.execute("select count(*) from pg_class where relname like 'billing_%'").fetchone()
    assert left == []
    assert tables == (0,)


@pytest.mark.parametrize("events", [(5,), (6_000, 5)])
def test_fewer_events_than_counters_are_refused_before_anything_is_made(
    console: Console, events: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigurationError, match="cannot fill"):
        run_benchmark("postgresql://nobody@127.0.0.1:1/nothing", events=events, counters=6, console=console)
    with pytest.raises(ConfigurationError, match="cannot fill"):
        measure_backfill("postgresql://nobody@127.0.0.1:1/nothing", rows=1, events=5, counters=6, console=console)


def late_csv(folder: Path) -> Path:
    header = (
        "gateway_name,gateway_customer_id,usage_type,request_id,quantity,event_timestamp,period_start,period_end,device"
    )
    at = "2025-05-03 12:00:00.123456+00,2025-05-01 00:00:00+00,2025-06-01 00:00:00+00"
    (folder / "late.csv").write_text(f"{header}\nstripe,cus_1,remote_commands,r-1,2,{at},dev_1\n")
    return folder / "late.csv"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.file_name)
def test_each_form_of_an_export_has_the_same_rows_by_hand(empty_database_url: str, tmp_path: Path, form: Form) -> None:
    fill(BillingDatabase(empty_database_url), events=60, counters=60, seed=1)
    exported, _ = form.export(late_csv(tmp_path), tmp_path)

    _, inserted = by_hand.insert_form(BillingDatabase(empty_database_url), form, exported)

    assert inserted == 1
    with psycopg.connect(empty_database_url) as connection:
        row = connection.execute(
            "select gateway_name, gateway_customer_id, usage_type, request_id, quantity, event_timestamp, "
            "period_start, period_end from billing_usage_events where request_id = 'r-1'"
        ).fetchone()
    assert row == (
        "stripe",
        "cus_1",
        "remote_commands",
        "r-1",
        2,
        datetime(2025, 5, 3, 12, 0, 0, 123456, tzinfo=UTC),
        datetime(2025, 5, 1, tzinfo=UTC),
        datetime(2025, 6, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.file_name)
def test_each_form_of_an_export_has_the_same_rows_under_the_mapping_that_comes_with_it(
    tmp_path: Path, form: Form
) -> None:
    exported, mapping = form.export(late_csv(tmp_path), tmp_path)

    (reading,) = readings(exported, yaml.safe_load(mapping.read_text()))
    assert reading.reasons == ()
    assert (reading.gateway_customer_id, reading.request_id, reading.quantity) == ("cus_1", "r-1", 2)
    assert reading.event_timestamp == datetime(2025, 5, 3, 12, 0, 0, 123456, tzinfo=UTC)
    assert reading.period == (datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))


@pytest.mark.parametrize("now", [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 1, 31, 23, tzinfo=UTC)])
def test_no_made_up_late_event_is_still_to_come_whatever_day_it_is(now: datetime) -> None:
    first = late_events._first_month(now)

    last_month = BillingMonth.parse(first.key)
    for _ in range(5):
        last_month = last_month.next()
    assert last_month.end + timedelta(days=27) <= now


@pytest.mark.parametrize(
    "error",
    [
        ReconError("It failed\x1b.", changed="Nothing was.", fix="Try again."),
        SchemaVersionError("Another version.", fix="Upgrade.", is_newer=True),
        NotSealedError("A key is open.", fix="Close it."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_the_process_of_a_contestant_says_the_same_where_it_is_shown(error: ReconError) -> None:
    sent = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(sent), str(sent), vars(sent)) == (type(error), str(error), vars(error))


def test_a_count_in_a_lake_is_measured_beside_the_engine_alone_and_every_counter_fits(
    empty_database_url: str, console: Console
) -> None:
    settings = read_settings({"DATABASE_URL": empty_database_url})
    report = measure_lake(settings, events=3_000, counters=300, console=console, engines=[EngineSettings()], rounds=2)
    assert {row.name: len(row.values) for row in report.measurements} == {
        f"DuckDB: {what}": 2 for what in (ALONE, COUNT, COMPARE)
    }
    assert all(row.least > 0 for row in report.measurements)
    assert [(bar.unit, bar.limit) for bar in report.bars] == [("MB", 4_000)]
    assert isinstance(console.file, io.StringIO)
    assert "3,000 events of 300 keys in a lake" in console.file.getvalue()
    with pytest.raises(ConfigurationError, match="299 events cannot fill 300 counters"):
        measure_lake(settings, events=299, counters=300, console=console, engines=[EngineSettings()])


def test_an_archive_is_measured_beside_a_copy_of_the_month_and_is_read_back_as_sealed(
    empty_database_url: str, console: Console
) -> None:
    settings = read_settings({"DATABASE_URL": empty_database_url})
    report = measure_archive(settings, events=3_000, counters=300, console=console, rounds=2)
    assert {row.name: len(row.values) for row in report.measurements} == {COPY: 2, ARCHIVE: 2, PROVE: 2}
    assert all(row.least > 0 for row in report.measurements)
    assert [(bar.unit, bar.limit) for bar in report.bars] == [("MB", 500)]
    assert isinstance(console.file, io.StringIO)
    assert "3,000 events of 300 keys in a sealed month" in console.file.getvalue()
    with pytest.raises(ConfigurationError, match="299 events cannot fill 300 counters"):
        measure_archive(settings, events=299, counters=300, console=console)


def test_a_comparison_with_stripe_keeps_to_its_rate_without_waiting_and_is_measured_beside_group_by(
    empty_database_url: str, console: Console
) -> None:
    report = measure_parity(empty_database_url, keys=120, events=1_200, console=console, rounds=2)
    assert {row.name: len(row.values) for row in report.measurements} == {
        GROUP_BY: 2,
        LOG_SIDE: 1,
        RECORDS: 1,
        WHOLE: 1,
    }
    assert all(row.least > 0 for row in report.measurements)
    assert (report.half.compared, report.passes.compared, report.passes.count) == (60, 120, 1)
    assert report.passes.calls == 120 + 2, "one for each key, and for the meter and its error reports"
    bars = {bar.name: bar for bar in report.bars}
    assert {name: bar.limit for name, bar in bars.items()} == {"Calls in a second": 20, "Calls for a key": 1.01}
    assert 0 < bars["Calls in a second"].value <= 20
    assert report.passes.peak_memory_mb > 20
    assert isinstance(console.file, io.StringIO)
    assert "120 keys of 1,200 events compared with a fake Stripe" in console.file.getvalue()
    assert_nothing_is_left(empty_database_url)
    with pytest.raises(ConfigurationError, match="11 events cannot fill 12 counters"):
        measure_parity("postgresql://nobody@127.0.0.1:1/nothing", keys=12, events=11, console=console)
