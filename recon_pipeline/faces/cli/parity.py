"""`recon parity`: where Stripe's meters differ from the log, and how usage is sent to them."""

from datetime import UTC, datetime
from pathlib import Path

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import WholeSentences, json_option, reporting_errors, show_json
from recon_pipeline.parity_settings import read_meters, read_parity, read_prices
from recon_pipeline.settings import read_settings


@click.group(
    "parity",
    cls=WholeSentences,
    invoke_without_command=True,
    epilog="Example: recon parity --period 2026-01 --output parity.csv",
)
@click.option("--customer", "customers", multiple=True, metavar="ID", help="Only this customer; repeatable.")
@click.option("--period", "periods", multiple=True, metavar="YYYY-MM", help="From the first to the last of these.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Also write all of them, .csv or .parquet.",
)
@json_option
@click.pass_context
def command(
    context: click.Context, *, customers: tuple[str, ...], periods: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """Show where Stripe's meters differ from what the log says was sent, by class, in units and money.

    It shows what the job compare_with_stripe found last, and changes nothing.
    """
    if context.invoked_subcommand is None:
        _show(customers=customers, periods=periods, output=output, as_json=as_json)
    if customers or periods or output or as_json:
        raise click.UsageError(f"Options of {context.invoked_subcommand} stand after it.")


@reporting_errors
def _show(*, customers: tuple[str, ...], periods: tuple[str, ...], output: Path | None, as_json: bool) -> int:
    from recon_pipeline.faces import parity as face

    require_text("--customer", customers, example="cus_123")
    months = tuple(BillingMonth.parse(period) for period in periods)
    found = face.find(read_settings(), read_meters(), read_prices(), customers=customers, months=months, output=output)
    if as_json:
        show_json(face.as_json(found))
    else:
        face.show(found, output)
    return face.exit_code(found)


@command.command("probe", epilog="Example: recon parity probe --customer cus_123 --meter mtr_123")
@click.option("--customer", required=True, metavar="ID", help="Whose usage is looked at; best one with much of it.")
@click.option("--usage-type", metavar="TYPE", help="Which usage, where RECON_SCOPE has several of Stripe's.")
@click.option("--meter", metavar="ID", help="The meter, where RECON_STRIPE_METERS names none or another.")
@click.option("--days", default=35, show_default=True, type=click.IntRange(1, 366), help="How many whole days.")
@json_option
@reporting_errors
def probe(*, customer: str, usage_type: str | None, meter: str | None, days: int, as_json: bool) -> int:
    """Find how usage is sent to a meter, from what Stripe has of one customer, and print RECON_STRIPE_METERS.

    It tries each event and sums by hour and day, by each timestamp and each column that names the customer. It reads
    log and meter, and changes nothing.
    """
    from recon_pipeline.faces import parity_probe as face
    from recon_pipeline.providers.stripe import StripeMeters, require_stripe

    for option, value, example in (
        ("--customer", customer, "cus_123"),
        ("--usage-type", usage_type, "remote_commands"),
        ("--meter", meter, "mtr_123"),
    ):
        require_text(option, [value], example=example)
    require_stripe()
    parity = read_parity(is_asked=True)
    asked = face.Asked(customer, usage_type, meter, days)
    meters = StripeMeters(parity.key, parity.url)
    found = face.probe(read_settings(), parity, meters, asked, now=datetime.now(UTC))
    if as_json:
        show_json(face.as_json(found))
    else:
        face.show(found)
    return face.exit_code(found)
