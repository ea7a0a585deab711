"""`recon explain`: why a counter has its value."""

from pathlib import Path

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("explain", epilog="Example: recon explain --customer cus_123 --period 2026-05 --html incident.html")
@click.option("--customer", required=True, metavar="ID", help="By gateway_customer_id.")
@click.option("--period", metavar="YYYY-MM", help="The billing month; the latest period of the customer if not given.")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Also write a report that opens offline, to attach to an incident.",
)
@json_option
@reporting_errors
def command(*, customer: str, period: str | None, html: Path | None, as_json: bool) -> int:
    """Explain a customer's counter: repairs, event sum, limit, days, producers."""
    from recon_pipeline.faces import explain as face
    from recon_pipeline.faces import explained

    require_text("--customer", [customer], example="cus_123")
    month = BillingMonth.parse(period) if period is not None else None
    found = face.explain(read_settings(), customer, month, html)
    if as_json:
        show_json(explained.as_json(found))
    else:
        explained.show(found)
    return EXIT_CLEAN
