"""A running `recon serve`, in a process of its own, and what a caller gets from it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

CRON = "/api/cron/billing/reconcile-usage"
START_SECONDS = 90
_SERVE = "from recon_pipeline.faces.cli import main; main()"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Caller:
    """Somebody who knows the port."""

    port: int

    def get(self, path: str, **headers: str) -> Reply:
        """The reply to a GET."""
        return self.call("GET", path, **headers)

    def cron(self, token: str | None, query: str = "", *, method: str = "GET") -> Reply:
        """The reply of the cron endpoint."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return self.call(method, CRON + query, **headers)

    def call(self, method: str, path: str, **headers: str) -> Reply:
        """The reply to any request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            found = {name.lower(): value for name, value in reply.getheaders()}
            return Reply(reply.status, found, reply.read().decode())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)


@dataclass(frozen=True)
class Server(Caller):
    """One process."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """What it wrote to its log, both streams."""
        return self.log.read_text()


@contextmanager
def serving(folder: Path, **variables: str) -> Generator[Server]:
    """A process that answers; ended at the end, by force if need be."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / f"serve-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, "serve", "--port", str(port)],
            env={**os.environ, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(port, process, log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(server):
            assert process.poll() is None, server.said()
            assert time.monotonic() < deadline, server.said()
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)


@contextmanager
def serving_here(app: FastAPI, **config: Any) -> Generator[Caller]:
    """An application on a thread of this process; `config` is more of uvicorn's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", **config))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Caller(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(30)


def _answers(server: Server) -> bool:
    try:
        return server.get("/healthz").status == 200
    except OSError:
        time.sleep(0.05)
        return False
