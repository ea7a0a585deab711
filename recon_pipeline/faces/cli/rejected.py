"""`recon rejected`: the rows that are not in the log, to be fixed."""

from pathlib import Path

import click

from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("rejected", epilog="Example: recon rejected 3f2a91c0 --output rejected.csv")
@click.argument("batch")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write all of them, .csv or .ndjson, as they were read; fix that file and backfill it.",
)
@json_option
@reporting_errors
def command(*, batch: str, output: Path | None, as_json: bool) -> int:
    """Show the rows of a BATCH that are not in the log, with every reason; the first characters of its id will do."""
    from recon_pipeline.faces import batches as face

    found = face.read_rejected(read_settings(), batch, output)
    if as_json:
        show_json(face.rejected_as_json(found))
    else:
        face.show_rejected(found)
    return EXIT_CLEAN
