"""`recon dev` as a person starts it: a process of its own, on databases that the environment names."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recon_pipeline_tests.support.dagster import DAGSTER_YAML

_START_SECONDS = 180
_STOP_SECONDS = 40
_POLL_SECONDS = 0.2


@contextmanager
def running_dev(home: Path, environment: Mapping[str, str]) -> Generator[str]:
    """Start it on a free port and stop it at the end; gives the address of the UI."""
    home.mkdir()
    shutil.copy(DAGSTER_YAML, home / "dagster.yaml")
    port = _free_port()
    said = home / "dev.log"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("recon"), "dev", "--port", str(port)],
            env={**os.environ, **environment, "DAGSTER_HOME": str(home), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(
            lambda: process.poll() is not None or "Dagster is at" in said.read_text(),
            seconds=_START_SECONDS,
            what=lambda: f"recon dev did not start: {said.read_text()}",
        )
        assert process.poll() is None, f"recon dev ended: {said.read_text()}"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def eventually(condition: Callable[[], bool], *, seconds: float, what: Callable[[], str]) -> None:
    """Wait for the condition; after so many seconds fail with `what()`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(_POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
