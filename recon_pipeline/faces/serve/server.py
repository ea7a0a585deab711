"""The process of `recon serve`: a socket, uvicorn, and its limits.

Invariant: one request per connection, with a head complete within `HEAD_SECONDS` and of at most `HEAD_BYTES`; at most
`CONNECTIONS` at once. A stop waits for the current run up to `STOP_SECONDS`; if that is too short, whole chunks stay.
"""

import asyncio
import signal
import socket
from contextlib import suppress
from copy import deepcopy
from importlib.metadata import version
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.h11_impl import H11Protocol

from recon_pipeline.core.errors import ConfigurationError, DatabaseUnreachableError
from recon_pipeline.faces.billing import billing_database
from recon_pipeline.faces.console import err
from recon_pipeline.faces.dagster_home import use_dagster_home
from recon_pipeline.faces.serve.app import create_app
from recon_pipeline.faces.serve.health import health_routes
from recon_pipeline.faces.serve.runner import Runner
from recon_pipeline.settings import Settings

HEAD_SECONDS = 10.0
HEAD_BYTES = 16_384
CONNECTIONS = 256
STOP_SECONDS = 60


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that drops a connection without a whole request head after `HEAD_SECONDS`, which uvicorn does not."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Start the timer."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_SECONDS, self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _drop(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def serve(settings: Settings, secrets: tuple[str, ...], *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: The address cannot be used, or there is no `dagster.yaml`.
    """
    database = billing_database(settings)
    # A database that is away comes back; a schema of another version does not get right by waiting.
    with suppress(DatabaseUnreachableError), database.connection():
        pass
    if not secrets:
        err.print(
            "CRON_SECRET is not set: the cron endpoint answers 500 to all callers; health and metrics work.",
            style="bold yellow",
            soft_wrap=True,
        )
    use_dagster_home()
    runner = Runner(settings, database)
    app = create_app(runner, secrets, settings.scope, version=version("recon-pipeline"))
    app.include_router(health_routes(database))
    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        ws="none",
        lifespan="off",
        headers=[("Connection", "close"), ("Cache-Control", "no-store")],
        server_header=False,
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
    config["loggers"]["recon_pipeline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
