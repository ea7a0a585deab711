"""`recon retention`: from which billing month on the log is complete."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command(
    "retention", epilog='Example: recon retention --before 2026-01 --reason "TICKET-9: events are kept for 12 months"'
)
@click.option("--before", metavar="YYYY-MM", help="The first billing month of which the log has all events.")
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@reporting_errors
def command(*, before: str | None, reason: str | None, as_json: bool) -> int:
    """Declare that the billing months before one are no longer in the log: their counters are kept as they are.

    No run compares these months any more. The latest declaration counts. Without options it shows that declaration.
    """
    from recon_pipeline.faces import retention as face

    require_text("--reason", [reason], example='"TICKET-9: events are kept for 12 months"')
    month = BillingMonth.parse(before) if before is not None else None
    known = face.declare_or_read(read_settings(), month, reason=reason)
    if as_json:
        show_json(face.as_json(known))
    else:
        face.show(known)
    return EXIT_CLEAN
