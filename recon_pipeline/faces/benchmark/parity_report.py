"""What was measured of the comparison with Stripe's meters, its promises, and the table that shows it."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console

from recon_pipeline.assets.parity_pass import DUE_KEYS
from recon_pipeline.faces.benchmark.report import (
    FULL_SIZE_EVENTS,
    Bar,
    Measurement,
    Promised,
    show_bars,
    show_times,
)
from recon_pipeline.providers.pace import CALLS_PER_SECOND


@dataclass(frozen=True)
class Passes:
    """What the passes over some months did.

    Attributes:
        count: How many it took until no key was due.
        compared: Keys.
        calls: Of Stripe's API.
        asking_seconds: For how long they asked, by the clock that goes ahead.
        seconds: How long they took in truth.
        log_seconds: How much of that was for statements that read the log.
        record_seconds: The same of all other statements.
        peak_memory_mb: Of their process.
    """

    count: int
    compared: int
    calls: int
    asking_seconds: float
    seconds: float
    log_seconds: float
    record_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True)
class ParityReport(Promised):
    """What was measured.

    Attributes:
        server_version: For example `18.4`.
        seed: Of the made-up usage.
        events: In the log.
        keys: That were compared.
        measurements: Times, by name.
        half: The passes over the first half of the months.
        passes: Those over all of them.
        bars: The promises.
    """

    server_version: str
    seed: int
    events: int
    keys: int
    measurements: tuple[Measurement, ...]
    half: Passes
    passes: Passes
    bars: tuple[Bar, ...]


def bars_of(half: Passes, passes: Passes, events: int) -> Iterator[Bar]:
    """What is promised of them."""
    yield Bar("Calls in a second", passes.calls / passes.asking_seconds, CALLS_PER_SECOND, "calls")
    yield Bar("Calls for a key", passes.calls / passes.compared, 1.01, "calls")
    if half.compared >= DUE_KEYS:
        yield Bar("Peak memory, to that of half the keys", passes.peak_memory_mb / half.peak_memory_mb, 1.1)
    if events >= FULL_SIZE_EVENTS:
        yield Bar("Database time of the log's side", passes.log_seconds, 10, "s")


def show(console: Console, report: ParityReport) -> None:
    """Print what was measured."""
    passes, half = report.passes, report.half
    title = f"{report.keys:,} keys of {report.events:,} events compared with a fake Stripe, Postgres "
    show_times(console, title + report.server_version, report.measurements, beside=report.measurements[0].name)
    show_bars(console, report.bars)
    console.print(
        f"{passes.calls:,} calls in {passes.count} passes, which asked for {passes.asking_seconds / 60:.0f} minutes "
        f"by a clock that skips each wait. Peak memory {half.peak_memory_mb:.0f} MB for {half.compared:,} keys, "
        f"{passes.peak_memory_mb:.0f} MB for {passes.compared:,}.",
        soft_wrap=True,
    )
