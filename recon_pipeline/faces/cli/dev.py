"""`recon dev`: Dagster on this machine."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, reporting_errors
from recon_pipeline.settings import read_settings


@click.command("dev", epilog="Example: recon dev --port 3001")
@click.option("--port", type=click.IntRange(1, 65_535), help="Of the UI; the first free one from 3000 on if not given.")
@reporting_errors
def command(*, port: int | None) -> int:
    """Run UI, daemon and schedule, on DATABASE_URL or the demo's database, until Ctrl-C."""
    from recon_pipeline.faces.dev import run_dev
    from recon_pipeline.parity_settings import observes
    from recon_pipeline.providers.stripe import require_stripe

    read_settings()
    if observes():  # else Dagster says so, in a log of one of its processes
        require_stripe()
    run_dev(port)
    return EXIT_CLEAN
