"""`recon doctor`: whether a run could do its work."""

import click

from recon_pipeline.faces.cli.options import require_url
from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("doctor", epilog="Example: recon doctor --json")
@json_option
@reporting_errors
def command(*, as_json: bool) -> int:
    """Check everything that a run relies on; show each failure with its fix."""
    settings = read_settings()
    url = require_url(settings)
    from recon_pipeline.faces import doctor as face
    from recon_pipeline.faces.assumptions import read_assumptions

    findings = tuple(face.examine(settings, url))
    assumed = read_assumptions(settings, url)
    if as_json:
        show_json(face.as_json(findings, assumed))
    else:
        face.show(findings, assumed)
    return EXIT_CLEAN if face.is_healthy(findings) else EXIT_NOT_CLEAN
