"""Which billing period a late event belongs to, and whether that period may be written.

The period comes from the row's own columns; else from the subscription that covers the event's timestamp; else it is
the UTC month. A subscription has only its current period: an event of an earlier one gets its calendar month.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from recon_pipeline.core.backfill.rows import Period, Reading
from recon_pipeline.core.periods import BillingMonth


@dataclass(frozen=True)
class Fence:
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
    readings: Sequence[Reading], subscribed: Mapping[tuple[str, str], Sequence[Period]], fence: Fence
) -> Sequence[Reading]:
    """The readings with their periods, and with the reason where that period may not be written.

    Args:
        readings: Of rows.
        subscribed: Current periods by gateway and customer, in order of preference.
        fence: The months that may be written.
    """
    found = [
        reading if reading.period is not None else reading._replace(period=_period_of(reading, subscribed))
        for reading in readings
    ]
    refusals = {period: fence.refusal(period) for period in {reading.period for reading in found} if period is not None}
    if not any(refusals.values()):
        return found
    return [
        reading._replace(reasons=(*reading.reasons, refusal))
        if (refusal := reading.period and refusals[reading.period])
        else reading
        for reading in found
    ]


def _period_of(reading: Reading, subscribed: Mapping[tuple[str, str], Sequence[Period]]) -> Period | None:
    timestamp = reading.event_timestamp
    if timestamp is None or reading.gateway_name is None or reading.gateway_customer_id is None:
        return None
    for period in subscribed.get((reading.gateway_name, reading.gateway_customer_id), ()):
        if period[0] <= timestamp < period[1]:
            return period
    return _calendar_month(timestamp.year, timestamp.month)


@lru_cache(maxsize=1_000)
def _calendar_month(year: int, month: int) -> Period:
    found = BillingMonth(min(year, 9998), month)
    return found.start, found.end


@lru_cache(maxsize=100_000)
def _month_of(period: Period) -> BillingMonth:
    return BillingMonth.containing(period[0])


def _listed(months: frozenset[BillingMonth]) -> str:
    return ", ".join(month.key for month in sorted(months))
