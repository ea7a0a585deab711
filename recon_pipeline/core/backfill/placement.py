"""Whether a late event may be written: its period is known and requested, and its time is plausible.

If a row has no period, `periods.py` decides which it is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from recon_pipeline.core.backfill.columns import Reasons
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.core.backfill.rows import Period, Reading
from recon_pipeline.core.periods import BillingMonth

_LONGEST_OUTSIDE = timedelta(days=1)
"""A queue may hand an event over after its period; a day more is another period, or a wrong unit."""
_FARTHEST_AHEAD = timedelta(minutes=10)
"""Clocks differ by less."""


@dataclass(frozen=True)
class WritableMonths:
    """The billing months that a backfill may write.

    Attributes:
        first: The month of RECON_START_PERIOD, or the first requested one.
        last: The current month, or the last requested one.
        asked: The months of `--period`, or None for all between.
    """

    first: BillingMonth
    last: BillingMonth
    asked: frozenset[BillingMonth] | None = None

    def refusal(self, period: Period) -> str | None:
        """Why an event of this period is rejected, or None."""
        month = _month_of(period)
        if self.asked is not None and month not in self.asked:
            return f"its billing month {month.key} is not among the requested ones ({_listed(self.asked)})"
        if month < self.first:
            return f"its billing month {month.key} is before {self.first.key}, the first that is reconciled here"
        if month > self.last:
            return f"its billing month {month.key} is after {self.last.key}, the last that is reconciled here"
        return None


def placed(
    readings: Sequence[Reading],
    found: Mapping[int, Period | str],
    writable: WritableMonths,
    *,
    mapping: MappingSpec,
    now: datetime,
) -> Sequence[Reading]:
    """The readings with their periods, and with the reasons of those that have none or may not be written.

    Args:
        readings: Of rows.
        found: The periods of those whose rows have none, by position; or why none was taken.
        writable: The months that may be written.
        mapping: What they were read with; it says which odd times are allowed.
        now: By the clock of the database.
    """
    whole = list(readings)
    reasons: Reasons = defaultdict(list)
    for index, period in found.items():
        if isinstance(period, str):
            reasons[index].append(period)
        else:
            whole[index] = whole[index]._replace(period=period)
    refusals = {
        period: writable.refusal(period) for period in {reading.period for reading in whole} if period is not None
    }
    if any(refusals.values()):
        for index, reading in enumerate(whole):
            if reading.period is not None and (refusal := refusals[reading.period]):
                reasons[index].append(refusal)
    if mapping.maps_period and "time_outside_period" not in mapping.allow:
        _refuse_outside_period(whole, found, reasons)
    if "time_in_future" not in mapping.allow:
        _refuse_future(whole, now, reasons)
    for index, more in reasons.items():
        whole[index] = whole[index]._replace(reasons=(*whole[index].reasons, *more))
    return whole


def _refuse_outside_period(readings: Sequence[Reading], found: Mapping[int, Period | str], reasons: Reasons) -> None:
    for index, reading in enumerate(readings):
        period, timestamp = reading.period, reading.event_timestamp
        if period is None or timestamp is None or period[0] <= timestamp < period[1] or index in found:
            continue
        if period[0] - timestamp > _LONGEST_OUTSIDE or timestamp - period[1] > _LONGEST_OUTSIDE:
            reasons[index].append(
                f"its time {timestamp.isoformat()} is more than a day outside its period {period[0].isoformat()} to "
                f"{period[1].isoformat()}; allow: time_outside_period in the mapping accepts it"
            )


def _refuse_future(readings: Sequence[Reading], now: datetime, reasons: Reasons) -> None:
    latest = now + _FARTHEST_AHEAD
    for index, reading in enumerate(readings):
        if reading.event_timestamp is not None and reading.event_timestamp > latest:
            reasons[index].append(
                f"its time {reading.event_timestamp.isoformat()} is in the future; allow: time_in_future in the "
                "mapping accepts it"
            )


@lru_cache(maxsize=100_000)
def _month_of(period: Period) -> BillingMonth:
    return BillingMonth.containing(period[0])


def _listed(months: frozenset[BillingMonth]) -> str:
    return ", ".join(month.key for month in sorted(months))
