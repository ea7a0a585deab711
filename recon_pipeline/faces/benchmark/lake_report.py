"""What was measured of a count in a lake, and the tables that show it."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from recon_pipeline.faces.benchmark.report import Bar, Measurement, Promised, show_bars, shown_time


@dataclass(frozen=True)
class LakeReport(Promised):
    """What was measured of a count in a lake.

    Attributes:
        server_version: For example `18.4`.
        seed: Of the made-up usage.
        events: In the lake, in one month.
        counters: Keys that they are of.
        measurements: Times, by name.
        bars: The promises.
    """

    server_version: str
    seed: int
    events: int
    counters: int
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]


def show_lake(console: Console, report: LakeReport) -> None:
    """Print what was measured of a count in a lake."""
    title = f"{report.events:,} events of {report.counters:,} keys in a lake, Postgres {report.server_version}"
    table = Table("What", title=title)
    for heading in ("Best", "Median", "Events per second"):
        table.add_column(heading, justify="right")
    for row in report.measurements:
        table.add_row(row.name, shown_time(row.least), shown_time(row.median), f"{report.events / row.least:,.0f}")
    console.print(table)
    show_bars(console, report.bars)
