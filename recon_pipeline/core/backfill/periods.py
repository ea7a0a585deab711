"""Decides which billing period a late event belongs to if its file does not say it; nothing else decides that.

Invariant: the period is one that somebody reads. So it is the one that the log has given the event already; else the
one that counters and log know at that time; else that of the one subscription which covers it, unless known periods are
of another kind; else, for a customer of whom nothing else is known, the calendar month. Otherwise there is none. If two
are possible, neither is taken, because the application's own choice is unknown.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from recon_pipeline.core.backfill.rows import Period

_ALIKE = 7 / 8
"""Of two periods of one kind the shorter is at least so long: months differ so, and days with a change of the clock."""


@dataclass(frozen=True)
class History:
    """What is known of a customer beyond the time of an event.

    Attributes:
        own: Periods of log and counters for the usage type; None for one without an end.
        others: Those of other usage types.
        subscribed: The current periods of all subscriptions; None for one without.
    """

    own: Collection[Period | None] = ()
    others: Collection[Period | None] = ()
    subscribed: Collection[Period | None] = ()


def covering(periods: Collection[Period | None], timestamp: datetime) -> list[Period]:
    """Those that contain the time, each once."""
    return [period for period in {*periods} if period is not None and period[0] <= timestamp < period[1]]


def period_of(timestamp: datetime, counted: Collection[Period], history: History, zone: str) -> Period | str:
    """The period of an event that the log does not have, or the reason why there is none.

    Args:
        timestamp: Of the event.
        counted: Periods of counters of its customer and usage type, at least those that contain the time.
        history: What else is known; where a counter's period contains the time, no more than `own` at that time.
        zone: Of the calendar months.
    """
    at = timestamp.isoformat()
    known = covering([*counted, *history.own], timestamp)
    if known:
        return _only(known, f"log and counters know more than one period of this customer and usage type at {at}")
    if not history.subscribed:
        return _calendar_month(timestamp, history, zone)
    subscribed = covering(history.subscribed, timestamp)
    if not subscribed:
        current = _listed([period for period in history.subscribed if period is not None]) or "none"
        return _refusal(
            f"log and counters know no period of this customer and usage type at {at}, and the current period of the "
            f"customer's subscription, {current}, is not of that time"
        )
    period = _only(subscribed, f"more than one subscription of this customer covers {at}, with different periods")
    other = None if isinstance(period, str) else _contradiction(period, history)
    if other is None:
        return period
    return _refusal(
        f"the current period of this customer's subscription is {_listed(subscribed)}, but the customer's usage is "
        f"counted by other periods, as {other}"
    )


def _calendar_month(timestamp: datetime, history: History, zone: str) -> Period | str:
    month = _month_containing(timestamp, zone)
    if month is None:
        return _refusal(f"{timestamp.isoformat()} is in no calendar month of {zone}")
    for other in history.own or history.others:
        if other is None or other != _month_containing(other[0], zone):
            return _refusal(
                f"log and counters know no period of this customer and usage type at {timestamp.isoformat()}, and the "
                f"customer's usage is counted by other periods than calendar months of {zone}, as {_shown(other)}"
            )
    return month


def _contradiction(period: Period, history: History) -> str | None:
    """A known period that overlaps this one, or the last one if its length is of another kind; None if neither is."""
    known = history.own or history.others
    bounded = [other for other in known if other is not None]
    for other in known:
        if other is None or (other != period and other[0] < period[1] and period[0] < other[1]):
            return _shown(other)
    last = max(bounded, default=period)
    lengths = sorted(end - start for start, end in (last, period))
    return None if lengths[0] > lengths[1] * _ALIKE else _shown(last)


def _month_containing(timestamp: datetime, zone: str) -> Period | None:
    try:
        local = timestamp.astimezone(_zone(zone))
        return _month(local.year, local.month, zone)
    except (OverflowError, ValueError):
        return None


@lru_cache(maxsize=1_000)
def _month(year: int, month: int, zone: str) -> Period:
    following = (year + month // 12, month % 12 + 1)
    first, after = (datetime(*one, 1, tzinfo=_zone(zone)).astimezone(UTC) for one in ((year, month), following))
    return first, after


@lru_cache(maxsize=100)
def _zone(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)


def _only(found: Sequence[Period], several: str) -> Period | str:
    return found[0] if len(found) == 1 else _refusal(f"{several}: {_listed(found)}")


def _refusal(reason: str) -> str:
    return f"{reason}; map period_start and period_end"


def _listed(periods: Sequence[Period]) -> str:
    return " and ".join(_shown(period) for period in sorted({*periods})[:2])


def _shown(period: Period | None) -> str:
    return "one without an end" if period is None else f"{period[0].isoformat()} to {period[1].isoformat()}"
