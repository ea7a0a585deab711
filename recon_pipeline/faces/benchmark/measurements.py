"""Measures what the options of `recon benchmark` ask for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from recon_pipeline.faces.benchmark import run_benchmark
from recon_pipeline.faces.benchmark.idle import IdleReport, measure_idle
from recon_pipeline.faces.benchmark.late_events import measure_backfill
from recon_pipeline.faces.benchmark.month_report import MonthReport
from recon_pipeline.faces.benchmark.parity import measure_parity
from recon_pipeline.faces.benchmark.parity_report import ParityReport
from recon_pipeline.faces.benchmark.report import BackfillReport, BenchmarkReport
from recon_pipeline.settings import Settings


@dataclass(frozen=True)
class BenchmarkOptions:
    """The options of the command as given.

    Attributes:
        events: Sizes of the log; a backfill takes the first.
        counters: Beside it.
        seed: Of everything that is random.
        rounds: How often each contestant takes its turn.
        chart: Where to draw times over sizes, or None.
        backfilled_rows: Instead, measure backfills of so many rows.
        lake_events: Instead, measure counts of so many events in a lake.
        archived_events: Instead, measure archives of a month of so many events.
        parity_keys: Instead, measure comparisons of so many keys with a fake Stripe.
        idle_seconds: Instead, measure short commands and an idle `recon dev`, watched for so long.
    """

    events: tuple[int, ...]
    counters: int
    seed: int
    rounds: int
    chart: Path | None
    backfilled_rows: int | None
    lake_events: int | None
    archived_events: int | None
    parity_keys: int | None
    idle_seconds: int | None


def measure(
    settings: Settings, options: BenchmarkOptions, console: Console
) -> BenchmarkReport | BackfillReport | MonthReport | ParityReport | IdleReport:
    """Measure what the options ask for, on the server of DATABASE_URL or on an embedded one.

    Args:
        settings: Name the server.
        options: What is measured.
        console: Shows what happens, and the report.

    Raises:
        ReconError: A size is impossible, or the server refused something. No counter of the application was touched.
    """
    url = settings.database_url
    if options.idle_seconds is not None:
        return measure_idle(url, seconds=options.idle_seconds, console=console)
    if options.parity_keys is not None:
        return measure_parity(
            url,
            keys=options.parity_keys,
            events=options.events[0],
            seed=options.seed,
            rounds=options.rounds,
            console=console,
        )
    if options.lake_events is not None:
        from recon_pipeline.faces.benchmark.lake import engines_here, measure_lake  # noqa: PLC0415 - an extra

        return measure_lake(
            settings,
            events=options.lake_events,
            counters=options.counters,
            seed=options.seed,
            rounds=options.rounds,
            console=console,
            engines=engines_here(),
        )
    if options.archived_events is not None:
        from recon_pipeline.faces.benchmark.archive import measure_archive  # noqa: PLC0415 - an extra

        return measure_archive(
            settings,
            events=options.archived_events,
            counters=options.counters,
            seed=options.seed,
            rounds=options.rounds,
            console=console,
        )
    if options.backfilled_rows is not None:
        return measure_backfill(
            url,
            rows=options.backfilled_rows,
            events=options.events[0],
            counters=options.counters,
            seed=options.seed,
            rounds=options.rounds,
            console=console,
        )
    return run_benchmark(
        url,
        events=options.events,
        counters=options.counters,
        seed=options.seed,
        rounds=options.rounds,
        console=console,
        chart=options.chart,
    )


def as_json(report: BenchmarkReport | BackfillReport | MonthReport | ParityReport | IdleReport) -> dict[str, Any]:
    """The one object of `--json`."""
    return {"success": report.is_kept, **asdict(report)}
