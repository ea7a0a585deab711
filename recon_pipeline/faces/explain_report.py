"""The report of `recon explain` as one HTML page: as a file that opens offline, anywhere, or served."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.charts import usage_charts
from recon_pipeline.faces.explain_facts import (
    Rows,
    bursts_table,
    days_table,
    facts,
    period_name,
    producers_table,
    repairs_table,
)
from recon_pipeline.faces.explained import Explained
from recon_pipeline.faces.html import render
from recon_pipeline.store.records.explain import Explanation


def require_writable(path: Path) -> None:
    """Refuse before anything is looked at.

    Raises:
        ConfigurationError: The folder does not exist.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"--html {path}: there is no folder {path.parent}.", fix="Name a file in one.")


def write_report(path: Path, explained: Explained) -> None:
    """Write the report; a file that is there is replaced."""
    try:
        path.write_text(report(explained, served=False), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html {path}: {error.strerror}.", fix="Name a file that can be written.") from error


def report(explained: Explained, *, served: bool) -> str:
    """The page; a served one has links to others."""
    return render(
        "explain.html.jinja",
        served=served,
        explained=explained,
        keys=[_section(one) for one in explained.explanations],
        others=[
            {
                "month": BillingMonth.containing(key.period_start).key,
                "name": period_name(key),
                "counter": "no row" if key.usage_count is None else f"{key.usage_count:,}",
            }
            for key in explained.keys[len(explained.explanations) :]
        ],
    )


def _section(one: Explanation) -> dict[str, Any]:
    return {
        "name": period_name(one.key),
        "facts": list(facts(one)),
        "charts": usage_charts(one) if one.days else (),
        "tables": [(title, *table) for title, table in _tables(one) if table[1]],
    }


def _tables(one: Explanation) -> Iterator[tuple[str, Rows]]:
    yield "Repairs, the latest first", repairs_table(one)
    yield "Usage by producer, the largest first", producers_table(one)
    yield "Busiest minutes (UTC)", bursts_table(one)
    yield "Usage by day (UTC)", days_table(one)
