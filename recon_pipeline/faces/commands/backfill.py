"""Commands for events that never arrived: insert them, list what was inserted, get back what was not."""

from pathlib import Path

import click

from recon_pipeline.faces.console import EXIT_CLEAN, json_option, show_json, telling_errors
from recon_pipeline.settings import read_settings


@click.command("backfill-events", epilog="Example: recon backfill-events audit.csv.gz --mapping audit.yaml --dry-run")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="A YAML file that says which column is what.",
)
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="Only this billing month; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; insert nothing.")
@click.option("--no-reconcile", is_flag=True, help="Leave the counters to the next tick.")
@click.option("--approve", "approve_reason", metavar="REASON", help="Repair beyond the budgets; recorded.")
@json_option
@telling_errors
def backfill_events(
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

    A SOURCE is a file, a glob, a folder or a URL of CSV, NDJSON or Parquet, also gzip or zstd; or table:NAME, or
    query:"SELECT …", of the billing database.
    """
    from recon_pipeline.faces import backfill as face

    asked = face.Asked(sources, mapping, periods, dry_run, no_reconcile, approve_reason)
    ended = face.run_backfill(read_settings(), asked)
    if as_json:
        show_json(face.as_json(ended))
    else:
        face.show(ended)
    return face.exit_code(ended)


@click.command(epilog="Example: recon backfills")
@json_option
@telling_errors
def backfills(*, as_json: bool) -> int:
    """List the latest batches of backfilled events."""
    from recon_pipeline.faces import batches as face

    found = face.read_batches(read_settings())
    if as_json:
        show_json(face.batches_as_json(found))
    else:
        face.show_batches(found)
    return EXIT_CLEAN


@click.command(epilog="Example: recon rejected 3f2a91c0 --output rejected.csv")
@click.argument("batch")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all of them, .csv or .ndjson, as they came; fix that file and backfill it.",
)
@json_option
@telling_errors
def rejected(*, batch: str, output: Path | None, as_json: bool) -> int:
    """Show the rows of a BATCH that are not in the log, with every reason; the first characters of its id will do."""
    from recon_pipeline.faces import batches as face

    found = face.read_rejected(read_settings(), batch, output)
    if as_json:
        show_json(face.rejected_as_json(found))
    else:
        face.show_rejected(found)
    return EXIT_CLEAN
