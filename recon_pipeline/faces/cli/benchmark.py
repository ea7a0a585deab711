"""`recon benchmark`: how fast the product is on this machine."""

from pathlib import Path

import click

from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, err, json_option, out, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("benchmark", epilog="Example: recon benchmark --events 1000000 --counters 60000")
@click.option(
    "--events",
    multiple=True,
    default=(5_000_000,),
    show_default=True,
    type=click.IntRange(min=1),
    help="Size of the log; may be repeated.",
)
@click.option("--counters", default=300_000, show_default=True, type=click.IntRange(min=6), help="Number of counters.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same data.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100), help="How often each is measured.")
@click.option(
    "--chart", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw times over sizes (SVG, PNG)."
)
@click.option(
    "--backfill",
    "backfilled_rows",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Instead: backfills of so many rows from files of several forms, beside COPY and INSERT … ON CONFLICT.",
)
@click.option(
    "--lake",
    "lake_events",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Instead: a month of so many events counted in a lake, beside the engine alone, by DuckDB and, where it is "
    "installed, by Spark; needs recon-pipeline[lake].",
)
@click.option(
    "--archive",
    "archived_events",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    help="Instead: a sealed month of so many events archived, beside COPY … TO; needs recon-pipeline[lake].",
)
@click.option(
    "--parity",
    "parity_keys",
    type=click.IntRange(min=12),
    metavar="KEYS",
    help="Instead: so many keys compared with a fake Stripe, at the rate at which Stripe is asked, beside GROUP BY; "
    "needs recon-pipeline[stripe].",
)
@click.option(
    "--idle",
    "idle_seconds",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Instead: short commands, then what an idle recon dev costs in so many seconds, once it has settled.",
)
@json_option
@reporting_errors
def command(
    *,
    events: tuple[int, ...],
    counters: int,
    seed: int,
    rounds: int,
    chart: Path | None,
    backfilled_rows: int | None,
    lake_events: int | None,
    archived_events: int | None,
    parity_keys: int | None,
    idle_seconds: int | None,
    as_json: bool,
) -> int:
    """Measure the product against hand-written SQL, as ratios, on simulated usage.

    It creates its own databases on the server of DATABASE_URL, or on an embedded one, and drops them at the end.
    """
    from recon_pipeline.faces.benchmark import measurements as face

    options = face.BenchmarkOptions(
        events, counters, seed, rounds, chart, backfilled_rows, lake_events, archived_events, parity_keys, idle_seconds
    )
    report = face.measure(read_settings(), options, err if as_json else out)
    if as_json:
        show_json(face.as_json(report))
    return EXIT_CLEAN if report.is_kept else EXIT_NOT_CLEAN
