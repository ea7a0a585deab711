"""The report of `recon explain` as one HTML file: its charts are SVG inside, so it opens offline, anywhere."""

from datetime import timedelta
from io import StringIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.faces.explain import Explained
from recon_pipeline.faces.explain_facts import (
    bursts_table,
    days_table,
    facts,
    period_name,
    producers_table,
    repairs_table,
)
from recon_pipeline.store.records.explain import Explanation


def require_writable(path: Path) -> None:
    """Refuse before anything is looked at.

    Raises:
        ConfigurationError: The folder does not exist, or matplotlib is not installed.
    """
    if not path.parent.is_dir():
        raise ConfigurationError(f"--html {path}: there is no folder {path.parent}.", fix="Name a file in one.")
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--html needs matplotlib, which is not installed.", fix="pip install 'recon-pipeline[charts]'"
        ) from None


def write_report(path: Path, explained: Explained) -> None:
    """Write the report; a file that is there is replaced."""
    environment = Environment(
        loader=PackageLoader("recon_pipeline.faces", "."), autoescape=True, undefined=StrictUndefined
    )
    keys = [
        {
            "name": period_name(one.key),
            "facts": list(facts(one)),
            "chart": _chart(one) if one.days else None,
            "tables": [
                (title, *table)
                for title, table in (
                    ("Repairs, the latest first", repairs_table(one)),
                    ("Usage by producer, the largest first", producers_table(one)),
                    ("Busiest minutes (UTC)", bursts_table(one)),
                    ("Usage by day (UTC)", days_table(one)),
                )
                if table[1]
            ],
        }
        for one in explained.explanations
    ]
    page = environment.get_template("explain.html.jinja").render(explained=explained, keys=keys)
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--html {path}: {error.strerror}.", fix="Name a file that can be written.") from error


def _chart(one: Explanation) -> str:
    """Usage by day, and its running total beside the limits, as SVG."""
    from matplotlib import dates
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    total, daily = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    days = [day.day for day in one.days]
    ends = [day + timedelta(days=1) for day in days]
    totals = [float(day.running_total) for day in one.days]
    total.step([days[0], *ends], [0.0, *totals], where="post", color="#1f6feb", label="usage so far")
    for crossing in one.crossings:
        # A limit far above what was used would flatten the curve; the table names it.
        if crossing.units <= 3 * max(totals):
            total.axhline(crossing.units, color="#cf222e", linestyle="--", linewidth=1)
            total.annotate(f"{crossing.name} limit {crossing.units:,}", (days[0], crossing.units), va="bottom")
    if one.key.usage_count is not None:
        total.axhline(one.key.usage_count, color="#57606a", linestyle=":", linewidth=1, label="counter now")
    total.set_ylabel("units")
    total.legend(loc="lower right")
    daily.bar(days, [float(day.usage_count) for day in one.days], width=1, align="edge", color="#1f6feb")
    daily.set_ylabel("by day")
    daily.xaxis.set_major_formatter(dates.ConciseDateFormatter(daily.xaxis.get_major_locator()))
    for axes in (total, daily):
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    drawn = StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]
