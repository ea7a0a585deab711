"""`recon count-lake`: counts months in the lake that RECON_LAKE names."""

import click

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("count-lake", epilog="Example: recon count-lake --period 2026-01")
@click.option(
    "--period", "periods", multiple=True, metavar="YYYY-MM", help="A billing month; repeatable. Default: all."
)
@click.option("--withdraw", is_flag=True, help="Let the month follow the log in Postgres again.")
@click.option("--reason", metavar="TEXT", help="Why it is withdrawn; recorded.")
@json_option
@reporting_errors
def command(*, periods: tuple[str, ...], withdraw: bool, reason: str | None, as_json: bool) -> int:
    """Count months in the lake that RECON_LAKE names; the next run compares their counters with it.

    A month that was counted from the same files is not counted again. Nothing is repaired by this command.
    """
    from recon_pipeline.faces import lake as face

    require_text("--reason", [reason], example='"TICKET-7: the log is complete now"')
    months = [BillingMonth.parse(period) for period in periods]
    if withdraw != (reason is not None) or (withdraw and len(months) != 1):
        raise ConfigurationError(
            "--withdraw, --reason and one --period go together.",
            fix='Write it like recon count-lake --period 2026-01 --withdraw --reason "TICKET-7: the log is whole now".',
        )
    if withdraw:
        taken = face.withdraw(read_settings(), months[0], reason=reason or "")
        if as_json:
            show_json(face.withdrawn_as_json(taken))
        else:
            face.show_withdrawn(taken)
        return EXIT_CLEAN
    done = face.count(read_settings(), months)
    if as_json:
        show_json(face.counted_as_json(done))
    else:
        face.show_counted(done)
    return EXIT_CLEAN
