"""Finds where both sides of a window differ: by day, then by hour, each only where the one before differs.

Invariant: what is on its way hides nothing else. Units that are younger than the lag explain a difference only if both
sides are equal before that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from recon_pipeline.core.parity.classes import Compared, LogFigure
from recon_pipeline.core.parity.windows import Unit, Window, before, parts


@dataclass(frozen=True)
class Sides:
    """Both sides of one customer's usage.

    Attributes:
        total: What the meter has in a window.
        grouped: The same by hour or day of an aligned window; a unit without events may be left out.
        logged: What the log has in each of some windows that follow each other.
    """

    total: Callable[[Window], Decimal]
    grouped: Callable[[Window, Unit], Mapping[datetime, Decimal]]
    logged: Callable[[Sequence[Window]], Sequence[LogFigure]]

    def whole(self, window: Window) -> Compared:
        """Both sides of a window."""
        (log,) = self.logged([window])
        return Compared(window, log, self.total(window))

    def part(self, whole: Compared, log: LogFigure, until: datetime) -> Compared:
        """Both sides of what of a window is before an instant, of which the log's figure is known."""
        window = before(whole.window, until)
        reported = whole.reported if window == whole.window else self.total(window) if window else Decimal(0)
        return Compared(window, log, reported)

    def found(self, whole: Compared, settled: Compared) -> tuple[Compared, ...]:
        """Where both sides of a window differ: the window itself, if that is equal as far as it is settled."""
        if not settled.difference and whole.log.lies_between(whole.reported):
            return (whole,)
        return self.differing(whole.window)

    def around(self, settled: Compared, window: Window, until: datetime) -> tuple[Decimal, ...]:
        """The differences of what of a window is settled, and of the windows of its length before and after it."""
        length = window.end - window.start
        neighbours = Window(window.start - length, window.start), before(Window(window.end, window.end + length), until)
        return (settled.difference, *(self.whole(one).difference for one in neighbours if one))

    def differing(self, window: Window) -> tuple[Compared, ...]:
        """The hours, or what is less at both ends, in which both sides differ; in order of time."""
        return tuple(
            hour
            for day in self._by(window, "day")
            if day.difference
            for hour in self._by(day.window, "hour")
            if hour.difference
        )

    def _by(self, window: Window, unit: Unit) -> tuple[Compared, ...]:
        first, whole, last = parts(window, unit)
        reported = {piece: Decimal(0) for piece in whole.pieces(unit)}
        if whole:
            by_start = self.grouped(whole, unit)
            reported = {piece: by_start.get(piece.start, Decimal(0)) for piece in reported}
        for edge in filter(None, (first, last)):
            reported[edge] = self.total(edge)
        pieces = sorted(reported)
        return tuple(
            Compared(piece, log, reported[piece]) for piece, log in zip(pieces, self.logged(pieces), strict=True)
        )
