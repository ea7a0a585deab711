"""`recon release`: ends holds."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import customer_option, period_option, require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("release", epilog="Example: recon release --customer cus_123")
@customer_option
@period_option
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@reporting_errors
def command(*, customers: tuple[str, ...], periods: tuple[str, ...], reason: str | None, as_json: bool) -> int:
    """End holds before their time; the next run repairs what drifted meanwhile.

    Without --period every hold on the customer ends; with it only the hold on that month.
    """
    from recon_pipeline.faces import holds as face

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"TICKET-9: settled"')
    months = [BillingMonth.parse(period) for period in periods]
    ended = face.release(read_settings(), customers, months, reason=reason)
    if as_json:
        show_json(face.released_as_json(ended))
    else:
        face.show_released(ended)
    return EXIT_CLEAN
