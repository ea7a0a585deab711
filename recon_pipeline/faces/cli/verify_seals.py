"""`recon verify-seals`: are the seals what was written, and is what was sealed still in the log?"""

import click

from recon_pipeline.faces.console import json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("verify-seals", epilog="Example: recon verify-seals")
@click.option(
    "--chain",
    "kept_chain",
    metavar="CHECKSUM",
    help="The newest chain that an earlier run of this command printed: is its seal still there?",
)
@json_option
@reporting_errors
def command(*, kept_chain: str | None, as_json: bool) -> int:
    """Compute sums, checksums and chain of all seals again, and name the first that does not fit."""
    from recon_pipeline.faces import seals as face

    found = face.verify(read_settings(), kept_chain=kept_chain)
    if as_json:
        show_json(face.verified_as_json(found))
    else:
        face.show_verified(found)
    return face.exit_code(found)
