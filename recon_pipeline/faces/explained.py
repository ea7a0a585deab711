"""What `recon explain` found: typed, as JSON, and for a person."""

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.bar import Bar
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from recon_pipeline.core.errors import one_line
from recon_pipeline.faces.console import out
from recon_pipeline.faces.explain_facts import (
    bursts_table,
    crossed_on,
    facts,
    period_name,
    producers_table,
    repairs_table,
)
from recon_pipeline.store.counters.holds import Hold
from recon_pipeline.store.counters.pause import Pause
from recon_pipeline.store.records.explain import Explanation, Key
from recon_pipeline.store.records.retention import Retention
from recon_pipeline.store.records.runs import RunRecord


@dataclass(frozen=True)
class Explained:
    """The answer of the command.

    Attributes:
        customer: By gateway_customer_id.
        asked_at: By the database's clock.
        database: Without its password.
        keys: The customer's keys, the latest first.
        explanations: Of the latest ones.
        holds: On this customer.
        blocked: The latest runs over the keys that are explained, where they were blocked.
        pause: Of repairs, if they are paused.
        retention: What somebody has declared, if no run compares a key that is explained.
        report: The file with the HTML report, or None.
    """

    customer: str
    asked_at: datetime
    database: str
    keys: tuple[Key, ...]
    explanations: tuple[Explanation, ...]
    holds: tuple[Hold, ...]
    blocked: tuple[RunRecord, ...]
    pause: Pause | None
    retention: Retention | None
    report: Path | None = None


def as_json(explained: Explained) -> dict[str, Any]:
    """The one object of `--json`."""
    return {
        "success": True,
        **asdict(explained),
        "explanations": [asdict(one) | {"difference": one.difference} for one in explained.explanations],
    }


def show(explained: Explained) -> None:
    """The same for a person."""
    out.print(f"{one_line(explained.customer)} in {explained.database}", style="bold", markup=False)
    for run in explained.blocked:
        out.print("The latest run over this customer was blocked.", style="red")
        out.print(run.error, style="red", markup=False, soft_wrap=True)
    if explained.pause is not None:
        out.print(f"Repairs are paused {explained.pause}", style="yellow", markup=False)
    for hold in explained.holds:
        out.print(
            f"Held by {hold.held_by} until {hold.until:%Y-%m-%d %H:%M} UTC, {hold.partition or 'every month'}: "
            f"{hold.reason}",
            style="yellow",
            markup=False,
        )
    if explained.retention is not None:
        out.print(f"No run compares its counter: {explained.retention}", style="yellow", markup=False)
    for one in explained.explanations:
        _show_key(one)
    others = explained.keys[len(explained.explanations) :]
    if others:
        _table(
            "Other periods",
            ("period", "counter"),
            [(period_name(key), "no row" if key.usage_count is None else f"{key.usage_count:,}") for key in others],
        )
    if explained.report is not None:
        out.print(f"Report: {explained.report}", markup=False, soft_wrap=True)


def _show_key(one: Explanation) -> None:
    out.rule(escape(period_name(one.key)))
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, sentence in facts(one):
        table.add_row(name, escape(sentence))
    out.print(table)
    if one.repairs:
        _table("Repairs, the latest first", *repairs_table(one))
    if one.days:
        largest = max(day.usage_count for day in one.days)
        _table(
            "Usage by day (UTC)",
            ("day", "events", "usage", "", "total", ""),
            [
                (
                    f"{day.day:%m-%d}",
                    f"{day.event_count:,}",
                    f"{day.usage_count:,}",
                    Bar(float(largest), 0, float(day.usage_count), width=30, color="cyan"),
                    f"{day.running_total:,}",
                    crossed_on(one, day.day),
                )
                for day in one.days
            ],
        )
    if one.producers:
        _table("Usage by producer, the largest first", *producers_table(one))
    if one.bursts:
        _table("Busiest minutes (UTC)", *bursts_table(one))


_NUMBERS = ("events", "usage", "total", "before", "after", "added", "counter")


def _table(title: str, headings: tuple[str, ...], rows: list[Any]) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    for row in rows:
        cells: list[RenderableType] = [escape(cell) if isinstance(cell, str) else cell for cell in row]
        table.add_row(*cells)
    out.print(table)
