"""`recon backfills`: what was inserted lately."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("backfills", epilog="Example: recon backfills")
@json_option
@reporting_errors
def command(*, as_json: bool) -> int:
    """List the latest batches of backfilled events."""
    from recon_pipeline.faces import batches as face

    found = face.read_batches(read_settings())
    if as_json:
        show_json(face.batches_as_json(found))
    else:
        face.show_batches(found)
    return EXIT_CLEAN
