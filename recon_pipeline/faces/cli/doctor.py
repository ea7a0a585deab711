"""`recon doctor`: whether a run could do its work."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("doctor", epilog="Example: recon doctor --json")
@json_option
@reporting_errors
def command(*, as_json: bool) -> int:
    """Check everything that a run relies on; show each failure with its fix."""
    from recon_pipeline.faces import doctor as face

    examined = face.examine(read_settings())
    if as_json:
        show_json(face.as_json(examined))
    else:
        face.show(examined)
    return EXIT_CLEAN if examined.is_healthy else EXIT_NOT_CLEAN
