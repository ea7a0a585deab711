"""The process of `recon serve`: a socket, uvicorn, and its limits.

Invariant: one request per connection, within the bounds of `connections.py`; at most `CONNECTIONS` at once. A stop
waits for the current run up to `STOP_SECONDS`; if that is too short, whole chunks stay.
"""

import logging
import signal
import socket
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import version
from typing import Any, cast

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.logging import AccessFormatter

from recon_pipeline.core.errors import ConfigurationError, DatabaseUnreachableError
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import err
from recon_pipeline.faces.dagster_home import use_dagster_home
from recon_pipeline.faces.serve.access import Proxies, Secrets
from recon_pipeline.faces.serve.app import create_app
from recon_pipeline.faces.serve.connections import CONNECTIONS, HEAD_BYTES, PerAddress, bounded
from recon_pipeline.faces.serve.guard import Guard
from recon_pipeline.faces.serve.health import health_routes
from recon_pipeline.faces.serve.pages import add_pages
from recon_pipeline.faces.serve.runner import Runner
from recon_pipeline.settings import Settings, read_ui_url

STOP_SECONDS = 60


class WithoutQuery(AccessFormatter):
    """A line of the access log without the query: callers put tokens there, whether we read them or not."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line."""
        client, method, target, *rest = cast(tuple[Any, ...], record.args)
        record.args = (client, method, target.partition("?")[0], *rest)
        return super().formatMessage(record)


def serve(settings: Settings, secrets: Secrets, proxies: Proxies, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: The address cannot be used, or there is no `dagster.yaml`.
    """
    database = billing_database(settings)
    # An unreachable database comes back; a schema of another version does not become right by waiting.
    with suppress(DatabaseUnreachableError), database.connection():
        pass
    if not secrets.changing:
        pages = "pages are open to RECON_READ_SECRET" if secrets.reading else "nor is RECON_READ_SECRET: so do pages"
        err.print(
            f"CRON_SECRET is not set: the cron endpoint answers 500 to all callers; health and metrics work; {pages}.",
            style="bold yellow",
            soft_wrap=True,
        )
    use_dagster_home()
    runner, guard = Runner(settings, database), Guard(secrets)
    app = create_app(runner, guard, settings.scope, version=version("recon-pipeline"))
    app.include_router(health_routes(database))
    add_pages(app, database, settings, guard, ui_url=_ui_url())
    config = uvicorn.Config(
        PerAddress(app, proxies),
        http=bounded(proxies),
        ws="none",
        lifespan="off",
        headers=[("Connection", "close"), ("Cache-Control", "no-store")],
        server_header=False,
        forwarded_allow_ips=[str(network) for network in proxies.networks],
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=_to_stderr(),
    )
    with _listening(host, port) as listener:
        err.print(f"recon serve listens on http://{host}:{port}", markup=False, soft_wrap=True)
        # uvicorn raises the signal again after it has stopped; the process must exit normally.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listener])
    runner.wait(seconds=STOP_SECONDS)


def _ui_url() -> str:
    """The address of Dagster's UI; one that is mistyped stops no run, and pages have no links."""
    try:
        return read_ui_url()
    except ConfigurationError as error:
        err.print(f"{error.what} Pages have no links to it. {error.fix}", style="bold yellow", soft_wrap=True)
        return ""


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            changed="Nothing was started.",
            fix="Choose another with --host and --port, or stop the process that listens there.",
        ) from error


def _to_stderr() -> dict[str, Any]:
    """The logging of uvicorn and ours, all to stderr."""
    config = deepcopy(LOGGING_CONFIG)
    config["handlers"]["access"]["stream"] = "ext://sys.stderr"
    config["formatters"]["access"]["()"] = WithoutQuery
    config["loggers"]["recon_pipeline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
