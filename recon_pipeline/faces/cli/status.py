"""`recon status`: the current state, without a run."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, EXIT_NOT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("status", epilog="Example: recon status --json")
@json_option
@reporting_errors
def command(*, as_json: bool) -> int:
    """Show when counters last matched, what fails now, and the latest runs."""
    from recon_pipeline.faces import status as face

    known = face.read_status(read_settings())
    if as_json:
        show_json(face.as_json(known))
    else:
        face.show(known)
    return EXIT_CLEAN if known.is_clean else EXIT_NOT_CLEAN
