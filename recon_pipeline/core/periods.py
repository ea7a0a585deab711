"""Billing months: the partitions of billing periods.

A period belongs to the UTC month in which it starts, whatever its length. Months are half open: `[start, end)`.
Has no clock: callers pass instants.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from recon_pipeline.core.errors import ConfigurationError

_KEY = re.compile(r"(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])")

_UTC = re.compile(r"(\+00(:?00)?|Z)$")


@dataclass(frozen=True, order=True)
class BillingMonth:
    """One partition, written `YYYY-MM`.

    Attributes:
        year: Calendar year, 1 to 9998.
        month: 1 to 12.
    """

    year: int
    month: int

    @classmethod
    def parse(cls, key: str) -> "BillingMonth":
        """The month that a partition key names.

        Raises:
            ConfigurationError: The key is not of the form `YYYY-MM` or names no month.
        """
        match = _KEY.fullmatch(key)
        if match is None or not 1 <= int(match["year"]) <= 9998:
            raise ConfigurationError(
                f"{key!r} is not a billing month.",
                fix="Write it as YYYY-MM with a month from 01 to 12, for example 2026-05.",
            )
        return cls(int(match["year"]), int(match["month"]))

    @classmethod
    def containing(cls, instant: datetime) -> "BillingMonth":
        """The UTC month that an aware instant falls in."""
        utc = instant.astimezone(UTC)
        return cls(utc.year, utc.month)

    @property
    def key(self) -> str:
        """The partition key, `YYYY-MM`."""
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def start(self) -> datetime:
        """The first instant of the month."""
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def end(self) -> datetime:
        """The first instant after the month."""
        return self.next().start

    def next(self) -> "BillingMonth":
        """The month after this one."""
        return BillingMonth(self.year + self.month // 12, self.month % 12 + 1)


def months_between(first: BillingMonth, last: BillingMonth) -> tuple[BillingMonth, ...]:
    """All months from `first` to `last`, both included; empty if `last` is earlier."""
    months: list[BillingMonth] = []
    month = first
    while month <= last:
        months.append(month)
        month = month.next()
    return tuple(months)


def range_in_words(first: BillingMonth, last: BillingMonth) -> str:
    """A contiguous range of months for a person: `2026-01`, or `2026-01 to 2026-03`."""
    return first.key if first == last else f"{first.key} to {last.key}"


def instant_in_words(instant: datetime | str) -> str:
    """An instant in UTC for a person, of Python or as Postgres writes it: the date alone where it is midnight."""
    return _UTC.sub("", str(instant)).replace("T", " ").removesuffix(" 00:00:00")


def contiguous_ranges(months: Iterable[BillingMonth]) -> tuple[tuple[BillingMonth, BillingMonth], ...]:
    """The months as the fewest ranges `(first, last)`, both included, in order."""
    ranges: list[tuple[BillingMonth, BillingMonth]] = []
    for month in sorted(set(months)):
        if ranges and ranges[-1][1].next() == month:
            ranges[-1] = (ranges[-1][0], month)
        else:
            ranges.append((month, month))
    return tuple(ranges)


def require_known(months: Sequence[BillingMonth], *, first: BillingMonth, current: BillingMonth) -> None:
    """Refuse months whose periods are not reconciled.

    Args:
        months: The requested months.
        first: The month of `RECON_START_PERIOD`.
        current: The month of today.

    Raises:
        ConfigurationError: A month lies before `first` or after `current`.
    """
    for month in months:
        if month < first:
            raise ConfigurationError(
                f"The period {month.key} lies before RECON_START_PERIOD ({first.key}).",
                fix=f"Ask for {first.key} or later, or set RECON_START_PERIOD={month.key} to include it.",
            )
        if month > current:
            raise ConfigurationError(
                f"The period {month.key} lies in the future; the current month is {current.key}.",
                fix=f"Ask for {current.key} or earlier.",
            )
