"""The command line: every command, its options and an example; what they do is in the modules beside this one."""

from pathlib import Path

import click

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.commands.alerts import alerts
from recon_pipeline.faces.commands.backfill import backfill_events, backfills, rejected
from recon_pipeline.faces.commands.common import own_embedded_server
from recon_pipeline.faces.commands.explain import explain
from recon_pipeline.faces.commands.holds import hold, release
from recon_pipeline.faces.commands.pause import pause, resume
from recon_pipeline.faces.commands.serve import serve
from recon_pipeline.faces.commands.sql import sql
from recon_pipeline.faces.commands.undo import undo
from recon_pipeline.faces.console import (
    EXIT_CLEAN,
    EXIT_NOT_CLEAN,
    Commands,
    err,
    json_option,
    out,
    show_json,
    telling_errors,
)
from recon_pipeline.settings import Settings, read_settings

_FIRST_STEPS = """\b
Example, a first look: recon demo, then recon dev
Example, your own: export DATABASE_URL=postgresql://… DAGSTER_PG_URL=postgresql://…
  then recon init, recon doctor, recon reconcile --dry-run"""


@click.group("recon", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_FIRST_STEPS)
@click.version_option(package_name="recon-pipeline")
def main() -> None:
    """Keep usage-billing counters equal to the event log."""


@main.command(epilog="Example: recon demo --events 50000 --customers 800")
@click.option("--events", default=200_000, show_default=True, type=click.IntRange(2_000, 5_000_000), help="Events.")
@click.option("--customers", default=3_000, show_default=True, type=click.IntRange(100, 500_000), help="Customers.")
@click.option("--seed", default=7, show_default=True, help="The same seed gives the same data.")
@json_option
@telling_errors
def demo(*, events: int, customers: int, seed: int, as_json: bool) -> int:
    """Play a month that goes wrong on an embedded Postgres, and repair it."""
    from recon_pipeline.faces.demonstration import demonstrate

    return demonstrate(events=events, customers=customers, seed=seed, as_json=as_json)


@main.command(epilog="Example: recon dev --port 3001")
@click.option("--port", type=click.IntRange(1, 65_535), help="Of the UI; the first free one from 3000 on if not given.")
@telling_errors
def dev(*, port: int | None) -> int:
    """Run UI, daemon and schedule, on DATABASE_URL or the demo's database, until Ctrl-C."""
    from recon_pipeline.faces.dev import run_dev

    read_settings()
    run_dev(port)
    return EXIT_CLEAN


@main.command(epilog="Example: recon init --print > recon.sql")
@click.option("--with-billing-tables", is_flag=True, help="Also create the application's tables and recorder.")
@click.option("--without-ingest-xid", is_flag=True, help="Leave the log as it is; every run then reads all of it.")
@click.option("--print", "print_only", is_flag=True, help="Show the SQL instead of running it.")
@telling_errors
def init(*, with_billing_tables: bool, without_ingest_xid: bool, print_only: bool) -> int:
    """Prepare the database that DATABASE_URL names: schema recon, and the log's column ingest_xid."""
    from recon_pipeline.faces.init import prepare, printed
    from recon_pipeline.store.postgres.database import BillingDatabase

    if print_only:
        click.echo(printed(with_billing_tables=with_billing_tables, with_ingest_xid=not without_ingest_xid))
    else:
        database = BillingDatabase(_required_url(read_settings()))
        said = prepare(
            database,
            with_billing_tables=with_billing_tables,
            with_ingest_xid=not without_ingest_xid,
            on_step=lambda step: err.print(f"{step};", style="dim", markup=False, soft_wrap=True),
        )
        out.print(said, markup=False, soft_wrap=True)  # statements in it are to be copied as they stand
    return EXIT_CLEAN


@main.command(epilog="Example: recon doctor --json")
@json_option
@telling_errors
def doctor(*, as_json: bool) -> int:
    """Check everything that a run relies on; show each failure with its fix."""
    from recon_pipeline.faces import doctor as face

    settings = read_settings()
    _required_url(settings)
    findings = tuple(face.examine(settings))
    if as_json:
        show_json(face.as_json(findings))
    else:
        face.show(findings)
    return EXIT_CLEAN if face.is_healthy(findings) else EXIT_NOT_CLEAN


@main.command(epilog="Example: recon reconcile --period 2026-05 --period 2026-06 --dry-run")
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="A billing month; may be repeated.")
@click.option("--all", "every_period", is_flag=True, help="Every month from RECON_START_PERIOD on.")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Compare and check the guards; repair nothing.")
@click.option("--full", is_flag=True, help="Take sums from the log itself; check stored ones.")
@click.option("--while-paused", is_flag=True, help="Repair although repairs are paused.")
@click.option(
    "--approve", "approve_reason", metavar="REASON", help="Repair beyond the budgets what a blocked run has shown."
)
@click.option("--approve-run", metavar="RUN", help="Which blocked run; the latest over the same if not given.")
@json_option
@telling_errors
def reconcile(
    *,
    periods: tuple[str, ...],
    every_period: bool,
    customers: tuple[str, ...],
    dry_run: bool,
    full: bool,
    while_paused: bool,
    approve_reason: str | None,
    approve_run: str | None,
    as_json: bool,
) -> int:
    """Compare counters with the log, repair what drifted, verify.

    Without --period and --all: the months that a tick of the schedule would take.
    """
    from recon_pipeline.faces import reconcile as face

    asked = face.Asked(periods, every_period, customers, dry_run, full, while_paused, approve_reason, approve_run)
    ended = face.run_reconcile(own_embedded_server(read_settings()), asked)
    if as_json:
        show_json(face.as_json(ended, dry_run=dry_run))
    else:
        face.show(ended, dry_run=dry_run)
    return face.exit_code(ended, dry_run=dry_run)


@main.command(epilog="Example: recon status --json")
@json_option
@telling_errors
def status(*, as_json: bool) -> int:
    """Show when counters were last known to match, and what happened lately."""
    from recon_pipeline.faces import status as face

    known = face.read_status(own_embedded_server(read_settings()))
    if as_json:
        show_json(face.as_json(known))
    else:
        face.show(known)
    return EXIT_CLEAN if known.is_clean else EXIT_NOT_CLEAN


@main.command(epilog="Example: recon benchmark --events 1000000 --counters 60000")
@click.option(
    "--events",
    multiple=True,
    default=(5_000_000,),
    show_default=True,
    type=click.IntRange(min=1),
    help="Size of the log; may be repeated.",
)
@click.option("--counters", default=300_000, show_default=True, type=click.IntRange(min=6), help="Beside it.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same data.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100), help="Turns of each contestant.")
@click.option(
    "--chart", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw times over sizes (SVG, PNG)."
)
@click.option(
    "--backfill",
    "backfilled_rows",
    type=click.IntRange(min=1),
    metavar="ROWS",
    help="Instead: a backfill of so many rows from a Parquet file, beside COPY and INSERT … ON CONFLICT.",
)
@json_option
@telling_errors
def benchmark(
    *,
    events: tuple[int, ...],
    counters: int,
    seed: int,
    rounds: int,
    chart: Path | None,
    backfilled_rows: int | None,
    as_json: bool,
) -> int:
    """Measure the product against hand-written SQL, as ratios, on made-up usage.

    In databases of its own on the server of DATABASE_URL, or on embedded ones; dropped at the end.
    """
    from dataclasses import asdict

    from recon_pipeline.faces.benchmark import run_benchmark
    from recon_pipeline.faces.benchmark.late_events import measure_backfill

    url, console = read_settings().database_url, err if as_json else out
    if backfilled_rows is None:
        report = run_benchmark(
            url, events=events, counters=counters, seed=seed, rounds=rounds, console=console, chart=chart
        )
    else:
        report = measure_backfill(
            url, rows=backfilled_rows, events=events[0], counters=counters, seed=seed, rounds=rounds, console=console
        )
    if as_json:
        show_json({"success": report.is_kept, **asdict(report)})
    return EXIT_CLEAN if report.is_kept else EXIT_NOT_CLEAN


def _required_url(settings: Settings) -> str:
    if settings.database_url is None:
        raise ConfigurationError(
            "DATABASE_URL is not set: this command works on a database of your own.",
            changed="Nothing was changed.",
            fix="export DATABASE_URL=postgresql://user:password@host:5432/database "
            "(for a first look without one: recon demo).",
        )
    return settings.database_url


for command in (backfill_events, backfills, rejected, pause, resume, hold, release, undo, explain, sql, alerts, serve):
    main.add_command(command)
