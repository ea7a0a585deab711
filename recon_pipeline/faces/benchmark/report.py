"""The benchmark's result: times, ratios, their limits, and the tables that show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

FULL_SIZE_EVENTS = 5_000_000
"""From this size on the promises about ticks hold: a small log is read in no time."""


@dataclass(frozen=True)
class Measurement:
    """How long one piece of work took in seconds, or how many calls a second it did, in the order it was measured."""

    name: str
    values: tuple[float, ...]

    @property
    def least(self) -> float:
        """Of times the least disturbed."""
        return min(self.values)

    @property
    def most(self) -> float:
        """Of rates the least disturbed."""
        return max(self.values)

    @property
    def median(self) -> float:
        """The usual one."""
        return median(self.values)


@dataclass(frozen=True)
class Bar:
    """A promise in numbers.

    Attributes:
        name: What is measured.
        value: What was measured.
        limit: Of it.
        unit: `x` for a ratio, else `MB`.
        is_least: The limit is the least it may be, not the most.
    """

    name: str
    value: float
    limit: float
    unit: str = "x"
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the promise was kept in this run of the benchmark."""
        return self.value >= self.limit if self.is_least else self.value <= self.limit


class Promised:
    """A report with promises, its `bars`."""

    bars: tuple[Bar, ...]

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept."""
        return all(bar.is_met for bar in self.bars)


@dataclass(frozen=True)
class SizeReport:
    """What was measured on a log of one size.

    Attributes:
        events: In the log.
        counters: Beside it.
        measurements: Times, by name.
        bars: The promises that hold at this size.
        repaired_count: Counters that the last safe repair set.
        longest_lock_seconds: The longest for which a repair had counters locked: no increment waited longer.
        peak_memory_mb: Of the process that ran the product.
        mismatch_count: Keys that differed at the very end; anything but 0 is a failure.
    """

    events: int
    counters: int
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]
    repaired_count: int
    longest_lock_seconds: float
    peak_memory_mb: float
    mismatch_count: int

    def seconds(self, name: str) -> float:
        """The best time of a measurement."""
        return next(one for one in self.measurements if one.name == name).least


@dataclass(frozen=True)
class BenchmarkReport:
    """Everything that was measured.

    Attributes:
        server_version: For example `18.4`.
        seed: Of the made-up usage.
        sizes: In the order asked for.
        rates: Of the application's recorder.
        bars: The promises about all sizes together and about the recorder.
    """

    server_version: str
    seed: int
    sizes: tuple[SizeReport, ...]
    rates: tuple[Measurement, ...]
    bars: tuple[Bar, ...]

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept and every counter is right."""
        bars = [*self.bars, *(bar for size in self.sizes for bar in size.bars)]
        return all(bar.is_met for bar in bars) and not any(size.mismatch_count for size in self.sizes)


@dataclass(frozen=True)
class BackfillReport(Promised):
    """What was measured of backfills.

    Attributes:
        server_version: For example `18.4`.
        seed: Of the made-up usage.
        rows: Of the file.
        events: In the log before.
        counters: Beside it.
        measurements: Times, by name.
        bars: The promises.
    """

    server_version: str
    seed: int
    rows: int
    events: int
    counters: int
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]


def show_size(console: Console, report: SizeReport, *, beside: str) -> None:
    """Print what was measured on one size.

    Args:
        console: Where to.
        report: What was measured.
        beside: The name of the measurement that the others are shown as multiples of.
    """
    show_times(console, f"{report.events:,} events, {report.counters:,} counters", report.measurements, beside=beside)
    show_bars(console, report.bars)
    console.print(
        f"{report.repaired_count:,} counters repaired, none locked longer than {report.longest_lock_seconds:.2f} s; "
        f"memory of the process at most {report.peak_memory_mb:.0f} MB; "
        f"{report.mismatch_count:,} counters differ from the log at the end."
    )


def show_times(console: Console, title: str, measurements: Sequence[Measurement], *, beside: str) -> None:
    """Print times, each as a multiple of the best of the measurement named `beside`."""
    (reference,) = (row.least for row in measurements if row.name == beside)
    table = Table("What", title=title)
    for heading in ("Best", "Median", "Ratio"):
        table.add_column(heading, justify="right")
    for row in measurements:
        table.add_row(row.name, shown_time(row.least), shown_time(row.median), f"{row.least / reference:.3g}")
    table.caption = f"Ratio: of the best times, to “{beside}”."
    console.print(table)


def show_backfill(console: Console, report: BackfillReport, *, beside: Mapping[str, str]) -> None:
    """Print what was measured of backfills.

    Args:
        console: Where to.
        report: What was measured.
        beside: For each name of a measurement, that of the one whose rows per second it is compared with.
    """
    title = f"{report.rows:,} rows of a file into a log of {report.events:,} events, Postgres {report.server_version}"
    table = Table("What", title=title)
    for heading in ("Best", "Median", "Rows per second", "Ratio"):
        table.add_column(heading, justify="right")
    least = {row.name: row.least for row in report.measurements}
    for row in report.measurements:
        ratio = f"{least[beside[row.name]] / row.least:.2f}" if row.name in beside else "1"
        rows_per_second = f"{report.rows / row.least:,.0f}"
        table.add_row(row.name, shown_time(row.least), shown_time(row.median), rows_per_second, ratio)
    table.caption = "By hand: COPY, INSERT … ON CONFLICT DO NOTHING. Ratio: of rows per second, to those by hand."
    console.print(table)
    show_bars(console, report.bars)


def show_whole(console: Console, report: BenchmarkReport) -> None:
    """Print what was measured beside the sizes."""
    rates = Table(title=f"Calls per second of the recorder, Postgres {report.server_version}")
    rates.add_column("What")
    for heading in ("Best", "Median"):
        rates.add_column(heading, justify="right")
    for row in report.rates:
        rates.add_row(row.name, f"{row.most:,.0f}", f"{row.median:,.0f}")
    console.print(rates)
    show_bars(console, report.bars)


def show_bars(console: Console, bars: Sequence[Bar]) -> None:
    """Print the promises."""
    table = Table("Promise")
    for heading in ("Measured", "Limit"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for bar in bars:
        unit = "" if bar.unit == "x" else f" {bar.unit}"
        bound = "at least" if bar.is_least else "at most"
        verdict = "[green]met[/]" if bar.is_met else "[red]not met[/]"
        table.add_row(bar.name, f"{bar.value:.2f}{unit}", f"{bound} {bar.limit:g}{unit}", verdict)
    console.print(table)


def shown_time(seconds: float) -> str:
    """Seconds for a person."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
