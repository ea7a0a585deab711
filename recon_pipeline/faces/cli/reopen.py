"""`recon reopen`: makes a sealed billing month an ordinary one again."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("reopen", epilog='Example: recon reopen --period 2026-01 --reason "TICKET-8: the export was short"')
@click.option("--period", required=True, metavar="YYYY-MM", help="The billing month.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@json_option
@reporting_errors
def command(*, period: str, reason: str, as_json: bool) -> int:
    """Make a sealed billing month an ordinary one again: its counters follow the log.

    The next seal of the month says what changed.
    """
    from recon_pipeline.faces import seals as face

    require_text("--reason", [reason], example='"TICKET-8: the export was short"')
    done = face.reopen(read_settings(), BillingMonth.parse(period), reason=reason)
    if as_json:
        show_json(face.reopened_as_json(done))
    else:
        face.show_reopened(done)
    return EXIT_CLEAN
