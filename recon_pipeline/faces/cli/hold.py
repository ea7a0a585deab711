"""`recon hold`: excludes some customers' counters from repairs for a while."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import customer_option, period_option, require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("hold", epilog='Example: recon hold --customer cus_123 --reason "TICKET-9: disputed" --until 3d')
@customer_option
@period_option
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option("--until", required=True, metavar="WHEN", help="When it ends: 30m, 2h, 3d, 2026-11-25T06:00Z.")
@json_option
@reporting_errors
def command(*, customers: tuple[str, ...], periods: tuple[str, ...], reason: str, until: str, as_json: bool) -> int:
    """Exclude the counters of some customers from repairs, whatever the log says; they are reported as held.

    Without --period, in every billing month. Returns when no repair of them is in progress any more.
    """
    from recon_pipeline.faces import holds as face

    require_text("--customer", customers, example="cus_123")
    require_text("--reason", [reason], example='"TICKET-9: disputed"')
    months = [BillingMonth.parse(period) for period in periods]
    held = face.hold(read_settings(), customers, months, reason=reason, until=until)
    if as_json:
        show_json(face.held_as_json(held))
    else:
        face.show_held(held)
    return EXIT_CLEAN
