"""`recon seal`: closes a billing month."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("seal", epilog="Example: recon seal --period 2026-01")
@click.option("--period", required=True, metavar="YYYY-MM", help="The billing month.")
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@reporting_errors
def command(*, period: str, reason: str | None, as_json: bool) -> int:
    """Seal a closed billing month: its counters stay what they are, whatever happens to the log.

    Refused unless all periods of the month have ended, every counter is what the log adds up to, and no key is open.
    """
    from recon_pipeline.faces import seals as face

    require_text("--reason", [reason], example='"TICKET-7: invoices are sent"')
    done = face.seal(read_settings(), BillingMonth.parse(period), reason=reason)
    if as_json:
        show_json(face.sealed_as_json(done))
    else:
        face.show_sealed(done)
    return EXIT_CLEAN
