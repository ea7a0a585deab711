"""`recon corrections`: what came after billing months were sealed."""

from pathlib import Path

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("corrections", epilog="Example: recon corrections --period 2026-01 --output corrections.csv")
@click.option(
    "--period", "periods", multiple=True, required=True, metavar="YYYY-MM", help="A sealed billing month; repeatable."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write all of them, .csv or .parquet.",
)
@json_option
@reporting_errors
def command(*, periods: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Show late, changed and removed events of sealed months: for credit notes, or the next invoice."""
    from recon_pipeline.faces import corrections as face

    found = face.find(read_settings(), tuple(BillingMonth.parse(period) for period in periods), output)
    if as_json:
        show_json(face.as_json(found))
    else:
        face.show(found, output)
    return EXIT_CLEAN
