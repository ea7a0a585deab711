"""`recon pause`: no repairs for a while."""

import click

from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("pause", epilog='Example: recon pause --reason "INC-1234: the log is being restored" --until 2h')
@click.option("--reason", required=True, metavar="TEXT", help="Why; recorded.")
@click.option(
    "--until", metavar="WHEN", help="When it ends: 30m, 2h, 3d, 2026-11-25T06:00Z. If not given, at recon resume."
)
@json_option
@reporting_errors
def command(*, reason: str, until: str | None, as_json: bool) -> int:
    """Stop repairs: no counter is changed from now on; comparisons, checks and alerts go on.

    This includes the schedule, the HTTP endpoint and backfills. Returns when no repair is in progress any more.
    """
    from recon_pipeline.faces import pause as face

    require_text("--reason", [reason], example='"INC-1234: the log is being restored"')
    paused = face.pause(read_settings(), reason=reason, until=until)
    if as_json:
        show_json(face.paused_as_json(paused))
    else:
        face.show_paused(paused)
    return EXIT_CLEAN
