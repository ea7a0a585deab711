"""The process that `recon serve` is: a socket, uvicorn, and what it refuses to wait for.

Invariant: one request a connection, whose head has to be there within `HEAD_SECONDS` and `HEAD_BYTES`; no more than
`CONNECTIONS` at once. A stop waits for the run at work, but not for ever: what is cut off is whole chunks.
"""

import asyncio
import signal
import socket
from copy import deepcopy
from importlib import import_module
from importlib.metadata import version
from typing import Any

import uvicorn
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.h11_impl import H11Protocol

from recon_pipeline.assets.reconciler import open_database
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.orchestrator import use_dagster_home
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
        """Begin to wait."""
        super().connection_made(transport)
        self._patience = self.loop.call_later(HEAD_SECONDS, self._drop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._patience.cancel()
        super().connection_lost(exc)

    def _drop(self) -> None:
        if self.cycle is None:
            self.transport.abort()


def serve(settings: Settings, secrets: tuple[str, ...], *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: The address cannot be listened on, or there is no `dagster.yaml`.
    """
    use_dagster_home()
    import_module("recon_pipeline.definitions")  # takes seconds, which the first caller should not wait
    database = open_database(settings)
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
        # uvicorn raises the signal again when it has stopped; the process is to end as one that was asked to.
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
            f"{host} port {port} cannot be listened on: {error.strerror or error}.",
            changed="Nothing was started.",
            fix="Choose another with --host and --port, or end what listens there.",
        ) from error


def _to_stderr() -> dict[str, Any]:
    """The logging of uvicorn, all of it to stderr, with ours beside it."""
    config = deepcopy(LOGGING_CONFIG)
    config["handlers"]["access"]["stream"] = "ext://sys.stderr"
    config["loggers"]["recon_pipeline"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config
