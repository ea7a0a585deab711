"""Which way of sending explains what a meter has of one customer: each is tried against the meter's figures, by hour.

Invariant: a way explains the figures only if every hour is equal, and each minute that was asked for, of which one has
units. Minutes in which they differ distinguish ways that sum an hour alike, as long as there are such. Knows no
clock and no provider.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from recon_pipeline.core.parity.metering import STAMPED_AT, TIMESTAMPS, Metering
from recon_pipeline.core.parity.narrowing import Sides
from recon_pipeline.core.parity.windows import Window

HOURS_BY_MINUTE = 24
"""Of the hours in which the meter has something, so many are looked at by minute, those with most units first."""

_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Tried:
    """A way of sending, beside the figures of the meter.

    Attributes:
        metering: How it would be sent.
        hours: In how many hours, or minutes of one, both sides differ.
        units: By how much in all.
    """

    metering: Metering
    hours: int
    units: Decimal

    @property
    def explains(self) -> bool:
        """Whether the meter has exactly what would have been sent."""
        return self.hours == 0


def ways(metering: Metering) -> tuple[Metering, ...]:
    """The ways in which applications send: each event, or sums by hour or day; the meter and the rest as given.

    A sum has no period of its own, so that its timestamp is not taken from the start of one.
    """
    each = [replace(metering, sends="each", timestamp=column, stamped_at=STAMPED_AT[0]) for column in TIMESTAMPS]
    sums = [
        replace(metering, sends=sends, timestamp=column, stamped_at=stamped_at)
        for sends in ("hour", "day")
        for column in ("event_timestamp", "created_at")
        for stamped_at in STAMPED_AT
    ]
    return (*each, *sums)


def try_each(sides: Mapping[Metering, Sides], window: Window) -> tuple[Tried, ...]:
    """Try ways of sending on one customer, the closest first.

    Args:
        sides: The log's side by each way, all beside one customer of one meter.
        window: Whole days that are settled on both sides.
    """
    hours = window.pieces("hour")
    meter = next(iter(sides.values()))
    by_start = meter.grouped(window, "hour")
    reported = [by_start.get(hour.start, Decimal(0)) for hour in hours]
    if not any(reported):
        return ()
    tried = [_beside(reported, metering, _units(side, hours)) for metering, side in sides.items()]
    most_first = sorted(zip(reported, hours, strict=True), key=lambda one: (-one[0], one[1].start))
    busy = sorted(hour for _, hour in most_first[:HOURS_BY_MINUTE])
    minutes = [Window(hour.start + n * _MINUTE, hour.start + (n + 1) * _MINUTE) for hour in busy for n in range(60)]
    logged = {one.metering: _units(sides[one.metering], minutes) for one in tried if one.explains}
    is_seen = False
    while (number := _first(logged, _differ)) is not None or (
        not is_seen and (number := _first(logged, any)) is not None
    ):
        has = meter.total(minutes[number])
        wrong = {way: abs(has - units[number]) for way, units in logged.items() if units[number] != has}
        tried = [_without(one, wrong) for one in tried]
        logged = {way: units for way, units in logged.items() if way not in wrong}
        is_seen = is_seen or has != 0
    return tuple(sorted(tried, key=lambda one: (one.hours, one.units)))


def _without(one: Tried, wrong: Mapping[Metering, Decimal]) -> Tried:
    return replace(one, hours=1, units=wrong[one.metering]) if one.metering in wrong else one


def _differ(units: Sequence[Decimal]) -> bool:
    return len(set(units)) > 1


def _first(logged: Mapping[Metering, Sequence[Decimal]], asked: Callable[[Sequence[Decimal]], bool]) -> int | None:
    """The first minute whose units, of each way, are so."""
    return next((number for number, units in enumerate(zip(*logged.values(), strict=True)) if asked(units)), None)


def _beside(reported: Sequence[Decimal], metering: Metering, logged: Sequence[Decimal]) -> Tried:
    differences = [abs(one - other) for one, other in zip(reported, logged, strict=True) if one != other]
    return Tried(metering, len(differences), sum(differences, Decimal(0)))


def _units(sides: Sides, windows: Sequence[Window]) -> Sequence[Decimal]:
    return [figure.units for figure in sides.logged(windows)]
