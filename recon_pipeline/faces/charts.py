"""Charts of pages: the places of bars, lines and words, as percentages of the chart. `chart.html.jinja` draws them.

A drawing library would bring styles and scripts that the pages' policy forbids, and text that shrinks on a phone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Literal

from recon_pipeline.store.records.drift_history import BUCKET, Bucket
from recon_pipeline.store.records.explain import Explanation

_LEAST_BAR = 2.0
"""A bar is at least so high: one drifted key is seen beside a thousand."""

_LAST_LABEL = 92.0
_MOST_DAYS_NAMED = 6


Kind = Literal["found", "left", "stopped", "silent"]


@dataclass(frozen=True)
class Bar:
    """A rectangle; `about` is shown where a pointer rests on it."""

    kind: Kind
    left: float
    top: float
    width: float
    height: float
    about: str


@dataclass(frozen=True)
class Line:
    """From one corner to the other."""

    kind: Literal["grid", "total", "limit", "counter"]
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Label:
    """A word above a place, or below it."""

    text: str
    left: float
    top: float
    is_below: bool = False
    anchor: Literal["start", "end"] = "start"


@dataclass
class Chart:
    """All of a chart; `about` describes it for people who cannot see it."""

    about: str
    is_low: bool = False
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)


def drift_chart(buckets: Iterable[Bucket], *, since: datetime, until: datetime) -> Chart:
    """What runs found, and what they left, from then till then; both are where a bucket begins."""
    found = {bucket.began_at: bucket for bucket in buckets}
    count = (until - since) // BUCKET
    most = max((bucket.drift_count for bucket in found.values()), default=0)
    left = sum(1 for bucket in found.values() if bucket.mismatch_count)
    chart = Chart(
        f"Drifted keys from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC: at most {most:,} in one run; keys "
        f"still differed after a run in {left} of {count} spans."
    )
    top = _ceiling(float(most))
    width = 100 / count
    for number in range(count):
        at = since + number * BUCKET
        place, bucket = number * width, found.get(at)
        name = f"{at:%b %d, %H:%M} to {at + BUCKET:%H:%M} UTC"
        if bucket is None:
            chart.bars.append(Bar("silent", place, 0, width, 100, f"{name}: no run"))
            continue
        about = f"{name}: at most {bucket.drift_count:,} drifted, {bucket.mismatch_count:,} still after a run"
        about += f"; {bucket.stopped} of {bucket.runs} runs failed or were blocked" if bucket.stopped else ""
        if bucket.stopped:
            chart.bars.append(Bar("stopped", place, 0, width, 100, about))
        kinds: tuple[tuple[Kind, int], ...] = (("found", bucket.drift_count), ("left", bucket.mismatch_count))
        for kind, value in kinds:
            height = max(_LEAST_BAR, 100 * value / top) if value else 0.0
            chart.bars.append(Bar(kind, place + width * 0.1, 100 - height, width * 0.8, height, about))
        if at.hour == 0 and place < _LAST_LABEL:
            chart.labels.append(Label(f"{at:%b %d}", place, 100, is_below=True))
            chart.lines.append(Line("grid", place, 100, place, 103))
    _grid(chart, top)
    return chart


def usage_charts(one: Explanation) -> tuple[Chart, Chart]:
    """How usage added up, beside limits and counter, and usage by day; of a key with days."""
    first, count = one.days[0].day, (one.days[-1].day - one.days[0].day).days + 1
    total_at_end = float(one.days[-1].running_total)
    highest = max(float(day.running_total) for day in one.days)
    # A limit far above what was used would flatten the curve; the table names it.
    limits = [crossing for crossing in one.crossings if crossing.units <= 3 * max(highest, 1.0)]
    counter = None if one.key.usage_count is None else float(one.key.usage_count)
    top = _ceiling(max([highest, counter or 0.0, *(float(limit.units) for limit in limits)]))

    def height(value: float) -> float:
        return 100 - 100 * max(value, 0.0) / top

    totals = Chart(f"Usage from {first} on adds up to {total_at_end:,.10g} after {count} days.")
    width, before = 100 / count, 0.0
    for day in one.days:
        begins, after = (day.day - first).days * width, float(day.running_total)
        totals.lines.append(Line("total", begins, height(before), begins, height(after)))
        totals.lines.append(Line("total", begins, height(after), _next(one, day.day, first) * width, height(after)))
        before = after
    _grid(totals, top)
    for limit in limits:
        level = height(float(limit.units))
        totals.lines.append(Line("limit", 0, level, 100, level))
        totals.labels.append(Label(f"{limit.name} limit {limit.units:,}", 100, level, anchor="end"))
    if counter is not None:
        totals.lines.append(Line("counter", 0, height(counter), 100, height(counter)))
    return totals, _by_day(one, first, count)


def _by_day(one: Explanation, first: date, count: int) -> Chart:
    largest = max(float(day.usage_count) for day in one.days)
    top, width = _ceiling(largest), 100 / count
    chart = Chart(f"Usage by day, at most {largest:,.10g}.", is_low=True)
    for day in one.days:
        height = 100 * max(float(day.usage_count), 0.0) / top
        about = f"{day.day:%b %d}: {day.usage_count:,} in {day.event_count:,} events"
        place = (day.day - first).days * width
        chart.bars.append(Bar("found", place + width * 0.1, 100 - height, width * 0.8, height, about))
    for number in range(0, count, math.ceil(count / _MOST_DAYS_NAMED)):
        if number * width < _LAST_LABEL:
            named = f"{first + timedelta(days=number):%b %d}"
            chart.labels.append(Label(named, number * width, 100, is_below=True))
    _grid(chart, top)
    return chart


def _next(one: Explanation, day: date, first: date) -> int:
    """The day up to which a total is valid: the next with usage, or the end of the last one."""
    later = (other.day for other in one.days if other.day > day)
    return (next(later, one.days[-1].day + timedelta(days=1)) - first).days


def _grid(chart: Chart, top: float) -> None:
    for share in (0.0, 0.5, 1.0):
        chart.lines.insert(0, Line("grid", 0, 100 - 100 * share, 100, 100 - 100 * share))
        if share == 1.0 or (share and (top * share).is_integer() and not chart.is_low):
            chart.labels.append(Label(f"{top * share:,.10g}", 0, 100 - 100 * share))


def _ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50 and so on."""
    if value <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power)
