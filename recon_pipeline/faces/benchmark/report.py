"""What the benchmark has to say: times, ratios with the bars they have to stay under, and the table that shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

DETECTION_BAR = 1.2
"""Detection from scratch beside the full join written by hand at the same work_mem."""

REPAIR_BAR = 3.0
"""Safe repair of everything, ledger included, beside the unsafe UPDATE ... FROM at the same work_mem."""

MEMORY_BAR_MB = 400.0


@dataclass(frozen=True)
class Measurement:
    """How long one piece of work took, in seconds, in the order it was measured."""

    name: str
    seconds: tuple[float, ...]

    @property
    def best_seconds(self) -> float:
        """The least disturbed of them."""
        return min(self.seconds)

    @property
    def median_seconds(self) -> float:
        """The usual one."""
        return median(self.seconds)


@dataclass(frozen=True)
class Bar:
    """A promise in numbers.

    Attributes:
        name: What is measured.
        value: Against what it is compared: a ratio of the best times, or megabytes.
        limit: The most it may be.
        unit: `x` for a ratio, else `MB`.
    """

    name: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether the promise was kept in this run of the benchmark."""
        return self.value <= self.limit


@dataclass(frozen=True)
class BenchmarkReport:
    """Everything that was measured.

    Attributes:
        server_version: For example `18.4`.
        events: In the log.
        counters: Beside it.
        seed: Of the made-up usage.
        measurements: Times, by name.
        bars: The promises.
        repaired_count: Counters that the last safe repair set.
        longest_chunk_seconds: The longest transaction of a repair: nobody waited longer for a counter.
        peak_memory_mb: Of the process that ran the product.
        mismatch_count: Keys that differed at the very end; anything but 0 is a failure.
        plan: The top nodes of the comparison's plan.
    """

    server_version: str
    events: int
    counters: int
    seed: int
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]
    repaired_count: int
    longest_chunk_seconds: float
    peak_memory_mb: float
    mismatch_count: int
    plan: tuple[str, ...]


def show(console: Console, report: BenchmarkReport, *, beside: str) -> None:
    """Print the report.

    Args:
        console: Where to.
        report: What was measured.
        beside: The name of the measurement that the others are shown as multiples of.
    """
    reference = next(row for row in report.measurements if row.name == beside).best_seconds
    times = Table(title=f"{report.events:,} events, {report.counters:,} counters, Postgres {report.server_version}")
    times.add_column("What")
    for heading in ("Best", "Median", "Ratio"):
        times.add_column(heading, justify="right")
    for row in report.measurements:
        ratio = row.best_seconds / reference
        times.add_row(row.name, f"{row.best_seconds:.2f} s", f"{row.median_seconds:.2f} s", f"{ratio:.2f}")
    times.caption = f"Ratio: of the best times, to “{beside}”."
    console.print(times)
    console.print(_bars(report.bars))
    console.print(
        f"{report.repaired_count:,} counters repaired; the longest chunk took {report.longest_chunk_seconds:.2f} s; "
        f"{report.mismatch_count:,} counters differ from the log at the end."
    )
    console.print("Plan of the comparison:")
    for node in report.plan:
        console.print(f"  {node}", highlight=False, markup=False)


def _bars(bars: Sequence[Bar]) -> Table:
    table = Table()
    for heading, justify in (("Promise", "left"), ("Measured", "right"), ("At most", "right"), ("", "left")):
        table.add_column(heading, justify=justify)  # pyright: ignore[reportArgumentType]
    for bar in bars:
        unit = "" if bar.unit == "x" else f" {bar.unit}"
        verdict = "[green]met[/]" if bar.is_met else "[red]not met[/]"
        table.add_row(bar.name, f"{bar.value:.2f}{unit}", f"{bar.limit:g}{unit}", verdict)
    return table
