"""`recon dev` as a process of its own, and the processor time of all that it starts."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import psutil

from recon_pipeline.core.errors import ReconError
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.statements import labelled

COMMAND = "from recon_pipeline.faces.cli import main; main()"
"""What an interpreter runs as the command `recon`."""

_SETTLES_WITHIN_SECONDS = 1_200
_TICK_SECONDS = 10
"""Around each tick: its evaluation takes one or two."""

_POLL_SECONDS = 1.0

# How often a tick has confirmed a clean run instead of starting one.
_COUNT_CONFIRMED = labelled(
    "count_confirmed", "select count(*) from recon.reconciliation_run where confirms_run_id is not null"
)


@dataclass(frozen=True)
class Watch:
    """What was seen.

    Attributes:
        cpu_seconds: Of the processes, by name.
        tick_seconds: Of all of them, for an idle tick.
    """

    cpu_seconds: Mapping[str, float]
    tick_seconds: float


@contextmanager
def running_dev(environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """`recon dev` as a person starts it, ended at the end."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments
        [sys.executable, "-c", COMMAND, "dev"],
        env=dict(environment),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def await_confirmed(billing: BillingDatabase, dev: psutil.Process) -> None:
    """Wait until a tick has found nothing changed, and has ended.

    Raises:
        ReconError: None has, or `recon dev` has ended.
    """
    deadline = time.monotonic() + _SETTLES_WITHIN_SECONDS
    while not count_confirmed(billing):
        if not dev.is_running() or dev.status() == psutil.STATUS_ZOMBIE or time.monotonic() > deadline:
            raise ReconError(
                f"recon dev has confirmed no run within {_SETTLES_WITHIN_SECONDS} s, or it has ended.",
                fix="Start recon dev by hand and look at its runs in the UI.",
            )
        time.sleep(_POLL_SECONDS)
    time.sleep(_TICK_SECONDS)


def watch(billing: BillingDatabase, dev: psutil.Process, seconds: int) -> Watch:
    """Processor time while ticks come; that of a tick is what the seconds around it took more than others did."""
    began = time.monotonic()
    first, confirmed = cpu_seconds(dev), count_confirmed(billing)
    samples = [(began, sum(first.values()))]
    ticks: list[float] = []
    while time.monotonic() < began + seconds:
        time.sleep(_POLL_SECONDS)
        samples.append((time.monotonic(), sum(cpu_seconds(dev).values())))
        if (now := count_confirmed(billing)) > confirmed:
            confirmed = now
            ticks.append(samples[-1][0])
    last = cpu_seconds(dev)
    around = [_between(samples, at - _TICK_SECONDS / 2, at + _TICK_SECONDS / 2) for at in ticks]
    total = samples[-1][1] - samples[0][1]
    quiet_seconds = samples[-1][0] - began - _TICK_SECONDS * len(ticks)
    rate = (total - sum(around)) / quiet_seconds if quiet_seconds > 0 else 0.0
    tick = median(around) - rate * _TICK_SECONDS if around else 0.0
    return Watch({name: took - first.get(name, 0.0) for name, took in last.items()}, tick)


def _between(samples: Sequence[tuple[float, float]], start: float, end: float) -> float:
    within = [total for at, total in samples if start <= at <= end]
    return within[-1] - within[0] if within else 0.0


def processes(dev: psutil.Process) -> dict[str, psutil.Process]:
    """Those of `recon dev` by what they are."""
    found = {"recon dev": dev}
    for process in dev.children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:  # it has ended just now
            continue
        names = ("webserver", "_daemon", "api grpc")
        name = next((name for name in names if name in line), " ".join(line.split()[:4]))
        found[name if name not in found else f"{name} {process.pid}"] = process
    return found


def cpu_seconds(dev: psutil.Process) -> dict[str, float]:
    """Processor time of each process in seconds, with that of what it had started and waited for."""
    times: dict[str, float] = {}
    for name, process in processes(dev).items():
        try:
            of = process.cpu_times()
        except psutil.Error:  # the same
            continue
        times[name] = of.user + of.system + of.children_user + of.children_system
    return times


def count_confirmed(billing: BillingDatabase) -> int:
    """How many ticks have started no run."""
    with billing.transaction() as connection:
        return connection.execute(_COUNT_CONFIRMED).scalar_one()
