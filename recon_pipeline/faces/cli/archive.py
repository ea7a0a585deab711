"""`recon archive`: writes a sealed billing month as files."""

import click

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.console import EXIT_CLEAN, json_option, reporting_errors, show_json
from recon_pipeline.settings import read_settings


@click.command("archive", epilog="Example: recon archive --period 2025-01 --to s3://billing-archive/events")
@click.option("--period", required=True, metavar="YYYY-MM", help="The sealed billing month.")
@click.option(
    "--to", required=True, metavar="URL", help="A folder, or a URL that fsspec opens: s3://, gs:// and others."
)
@json_option
@reporting_errors
def command(*, period: str, to: str, as_json: bool) -> int:
    """Write the events of a sealed billing month as Parquet files, and read them back.

    It deletes nothing. It prints the statement by which the owner of the log may let the events leave it.
    """
    from recon_pipeline.faces import archives as face

    done = face.archive(read_settings(), BillingMonth.parse(period), to)
    if as_json:
        show_json(face.as_json(done))
    else:
        face.show(done)
    return EXIT_CLEAN
