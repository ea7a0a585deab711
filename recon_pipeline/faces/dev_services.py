"""The processes of `recon dev`: waited for, and ended with all that they started.

Invariant: they live and die together; whichever way our own process ends, none of them stays behind.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon_pipeline.core.errors import ReconError

_START_SECONDS = 180
_STOP_SECONDS = 20
_POLL_SECONDS = 0.2
_LOG_LINES_SHOWN = 15

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class DevError(ReconError):
    """One of Dagster's processes ended, or did not come up."""


@dataclass(frozen=True)
class Service:
    """One of the processes. It leads a process group, so that what it started can be ended with it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def signal_group(self, number: int) -> bool:
        """Send a signal to the process and all that it started; False if none of them is left."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def is_alive(self) -> bool:
        """Whether the process, or a run that it started, still exists."""
        self.process.poll()
        return self.signal_group(0)


def wait(services: Sequence[Service], stop: threading.Event, done: Callable[[], bool] | None) -> None:
    """Return when a stop is asked for, or, with `done`, when that is so.

    Raises:
        DevError: A process ended meanwhile, or it took too long.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not stop.wait(_POLL_SECONDS):
        for service in services:
            if service.process.poll() is not None:
                raise DevError(
                    f"Dagster's {service.name} ended with {service.process.returncode}. "
                    f"The end of {service.log}:\n{_end_of(service.log)}",
                    fix="Fix what it says and start again; the other processes were stopped.",
                )
        if done is not None and done():
            return
        if done is not None and time.monotonic() > deadline:
            raise DevError(
                f"Dagster's {services[-1].name} was not ready after {_START_SECONDS} s. "
                f"The end of {services[-1].log}:\n{_end_of(services[-1].log)}",
                fix="Try again when the machine is less busy; all processes were stopped.",
            )


def stop_all(services: Sequence[Service]) -> None:
    """End every process with what it started: asked first, killed after a time."""
    for service in services:
        service.signal_group(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(service.is_alive() for service in services) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for service in services:
        service.signal_group(signal.SIGKILL)
        service.process.wait()


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when our parent dies: a killed `recon dev` leaves no process behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM)


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES_SHOWN:])
