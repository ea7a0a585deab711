"""`recon serve`: the product over HTTP."""

import click

from recon_pipeline.faces.console import EXIT_CLEAN, reporting_errors
from recon_pipeline.faces.serve.access import read_proxies, read_secrets
from recon_pipeline.settings import read_settings


@click.command("serve", epilog="Example: recon serve --host 0.0.0.0 --port 8000 (with CRON_SECRET in the environment)")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65_535), help="Port to listen on.")
@reporting_errors
def command(*, host: str, port: int) -> int:
    """Serve pages, the cron endpoint, health and metrics over HTTP, until Ctrl-C."""
    secrets, proxies, settings = read_secrets(), read_proxies(), read_settings()
    from recon_pipeline.faces.serve.server import serve

    serve(settings, secrets, proxies, host=host, port=port)
    return EXIT_CLEAN
