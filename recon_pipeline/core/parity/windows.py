"""Windows of time as a provider's meter sums them: half open, aligned to minutes, in UTC.

Stripe's summaries begin and end at whole minutes; those by hour at whole hours, those by day at whole days of UTC
(API reference, List billing meter event summaries). Periods begin at any second: both ends are cut to the minute, so
that the windows of periods that follow each other do too.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Unit = Literal["hour", "day"]
_LENGTH: dict[Unit, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Window:
    """A span `[start, end)` of aware instants."""

    start: datetime
    end: datetime

    def __bool__(self) -> bool:
        """Whether any instant lies in it."""
        return self.start < self.end

    def __contains__(self, instant: datetime) -> bool:
        """Whether an instant lies in it."""
        return self.start <= instant < self.end

    def pieces(self, unit: Unit) -> tuple["Window", ...]:
        """The whole units of a window that is aligned to them."""
        length = _LENGTH[unit]
        count = (self.end - self.start) // length
        return tuple(Window(self.start + n * length, self.start + (n + 1) * length) for n in range(count))


def cut_to(instant: datetime, length: timedelta) -> datetime:
    """The last whole minute, hour or day of UTC that is not after an instant."""
    utc = instant.astimezone(UTC)
    return utc - (utc - _EPOCH) % length


def to_minute(instant: datetime) -> datetime:
    """The last whole minute that is not after an instant."""
    return cut_to(instant, timedelta(minutes=1))


def before(window: Window, instant: datetime) -> Window:
    """What of a window is before an instant; may be empty."""
    return Window(window.start, max(window.start, min(window.end, instant)))


def parts(window: Window, unit: Unit) -> tuple[Window, Window, Window]:
    """What lies before its whole units, those, and what lies after; each may be empty."""
    length = _LENGTH[unit]
    begun = cut_to(window.start, length)
    first = min(begun if begun == window.start else begun + length, window.end)
    last = max(cut_to(window.end, length), first)
    return Window(window.start, first), Window(first, last), Window(last, window.end)
