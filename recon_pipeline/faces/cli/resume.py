"""`recon resume`: repairs again, after a pause."""

import click

from recon_pipeline.faces.cli.options import require_text
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("resume", epilog='Example: recon resume --reason "INC-1234: the log is restored"')
@click.option("--reason", metavar="TEXT", help="Why; recorded.")
@json_option
@reporting_errors
def command(*, reason: str | None, as_json: bool) -> int:
    """Continue repairs after a pause; the next run repairs what it finds."""
    from recon_pipeline.faces import pause as face

    require_text("--reason", [reason], example='"INC-1234: the log is restored"')
    ended = face.resume(read_settings(), reason=reason)
    if as_json:
        show_json(face.resumed_as_json(ended))
    else:
        face.show_resumed(ended)
    return EXIT_CLEAN
