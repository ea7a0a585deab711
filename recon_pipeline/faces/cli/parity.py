"""`recon parity`: where Stripe's meters differ from the log."""

from pathlib import Path

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.console import json_option, reporting_errors, show_json
from recon_pipeline.parity_settings import read_meters, read_prices
from recon_pipeline.settings import read_settings


@click.command("parity", epilog="Example: recon parity --period 2026-01 --output parity.csv")
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; repeatable.")
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="From the first to the last of these.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write all of them, .csv or .parquet.",
)
@json_option
@reporting_errors
def command(*, customers: tuple[str, ...], periods: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    """Show where Stripe's meters differ from what the log says was sent, by class, in units and money.

    It shows what the job compare_with_stripe found last, and changes nothing.
    """
    from recon_pipeline.faces import parity as face

    months = tuple(BillingMonth.parse(period) for period in periods)
    found = face.find(read_settings(), read_meters(), read_prices(), customers=customers, months=months, output=output)
    if as_json:
        show_json(face.as_json(found))
    else:
        face.show(found, output)
    return face.exit_code(found)
