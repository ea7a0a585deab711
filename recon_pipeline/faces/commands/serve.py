"""`recon serve`: the HTTP face, until Ctrl-C."""

from contextlib import suppress

import click

from recon_pipeline.faces.commands.common import own_embedded_server
from recon_pipeline.faces.console import EXIT_CLEAN, err, telling_errors
from recon_pipeline.settings import read_cron_secrets, read_settings


@click.command(epilog="Example: recon serve --host 0.0.0.0 --port 8000 (with CRON_SECRET in the environment)")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65_535), help="Port to listen on.")
@telling_errors
def serve(*, host: str, port: int) -> int:
    """Serve the cron endpoint, health and metrics over HTTP, until Ctrl-C."""
    secrets = read_cron_secrets()
    settings = own_embedded_server(read_settings())
    from recon_pipeline.core.errors import DatabaseUnreachableError
    from recon_pipeline.faces.serve.server import serve as run
    from recon_pipeline.store.postgres.database import open_database

    # A database that is away comes back; a schema of another version does not get right by waiting.
    with suppress(DatabaseUnreachableError), open_database(settings).connection():
        pass

    if not secrets:
        err.print(
            "CRON_SECRET is not set: the cron endpoint answers 500 to everybody; health and metrics work.",
            style="bold yellow",
            soft_wrap=True,
        )
    err.print(f"recon serve listens on http://{host}:{port}", markup=False, soft_wrap=True)
    run(settings, secrets, host=host, port=port)
    return EXIT_CLEAN
