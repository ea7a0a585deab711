"""What was measured of one month, in a lake or archived, and the tables that show it."""

from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.benchmark.report import Bar, Measurement, Promised, show_bars, shown_time


@dataclass(frozen=True)
class MonthReport(Promised):
    """What was measured of one month.

    Attributes:
        what: Where its events are.
        server_version: For example `18.4`.
        seed: Of the made-up usage.
        events: In the month.
        counters: Keys that they are of.
        measurements: Times, by name.
        bars: The promises.
    """

    what: str
    server_version: str
    seed: int
    events: int
    counters: int
    measurements: tuple[Measurement, ...]
    bars: tuple[Bar, ...]


def require_enough(events: int, counters: int) -> None:
    """Refuse sizes of a month in which a counter would have no event.

    Raises:
        ConfigurationError: There are fewer events than counters.
    """
    if events < counters:
        raise ConfigurationError(
            f"{events:,} events cannot fill {counters:,} counters.", fix="Ask for at least as many events as counters."
        )


def show_month(console: Console, report: MonthReport) -> None:
    """Print what was measured of a month."""
    title = f"{report.events:,} events of {report.counters:,} keys {report.what}, Postgres {report.server_version}"
    table = Table("What", title=title)
    for heading in ("Best", "Median", "Events per second"):
        table.add_column(heading, justify="right")
    for row in report.measurements:
        table.add_row(row.name, shown_time(row.least), shown_time(row.median), f"{report.events / row.least:,.0f}")
    console.print(table)
    show_bars(console, report.bars)
