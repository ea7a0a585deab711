"""`recon backfill-events`: inserts events that never arrived."""

from pathlib import Path

import click

from recon_pipeline.faces.console import json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("backfill-events", epilog="Example: recon backfill-events audit.csv.gz --mapping audit.yaml --dry-run")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="A YAML file that maps columns of the export to the log's.",
)
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="Only this billing month; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would happen; insert nothing.")
@click.option("--no-reconcile", is_flag=True, help="Leave the counters to the next tick.")
@click.option(
    "--approve", "approve_reason", metavar="REASON", help="Approve repairs beyond the budgets, with this reason."
)
@json_option
@reporting_errors
def command(
    *,
    sources: tuple[str, ...],
    mapping: Path | None,
    periods: tuple[str, ...],
    dry_run: bool,
    no_reconcile: bool,
    approve_reason: str | None,
    as_json: bool,
) -> int:
    """Insert events that never arrived, each once, and reconcile.

    A SOURCE is a file, a glob, a folder or a URL of CSV, TSV, JSON, Parquet, ORC or Arrow, packed or not; - for a
    pipe; or table:NAME, or query:"SELECT …", of the billing database.
    """
    from recon_pipeline.faces import backfill as face
    from recon_pipeline.faces import backfilled

    options = face.BackfillOptions(sources, mapping, periods, dry_run, no_reconcile, approve_reason)
    ended = face.run_backfill(read_settings(), options)
    if as_json:
        show_json(backfilled.as_json(ended))
    else:
        backfilled.show(ended)
    return backfilled.exit_code(ended)
