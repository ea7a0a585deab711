"""Instants as exports write them, read without guessing: a time without a zone, also in the mapping, is rejected.

A local time that occurs twice or never (daylight saving) is rejected too: it could be billed in the wrong period. So is
a time whose unit or century is evidently another.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from recon_pipeline.core.backfill.fields import UNIX_FORMATS, InstantField
from recon_pipeline.core.backfill.iso_times import read_iso

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLAIN = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_FIRST, _END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2101, 1, 1, tzinfo=UTC)
"""Between these a metered event can have happened; what lies outside is a number in another unit, or a wrong date."""
_LONGEST_SHOWN = 80
_ZONE_NAMES = ("UTC", "GMT", "Z")
"""Of all abbreviations only these mean one offset; CST has three."""

InstantReader = Callable[[Any], datetime]


class UnreadableValueError(ValueError):
    """Why a value cannot be read, as the end of a sentence that begins with the name of the field."""


class ShortFloat(float):
    """A floating point number of two or four bytes, so large that it may stand for several whole numbers."""


class FineInstant(datetime):
    """An instant with nanoseconds, for what keeps them; the log has microseconds."""

    nanosecond: int = 0
    """Beyond the microseconds, 0 to 999."""

    @classmethod
    def of(cls, instant: datetime, nanosecond: int) -> "FineInstant":
        """The instant with so many nanoseconds more."""
        fine = cls.combine(instant.date(), instant.timetz())
        fine.nanosecond = nanosecond
        return fine

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """ISO 8601 with nine digits after the point."""
        whole = datetime(*self.timetuple()[:6]).isoformat(sep)  # noqa: DTZ001 - the zone follows
        zone = self.strftime("%z")
        return f"{whole}.{self.microsecond:06d}{self.nanosecond:03d}{f'{zone[:3]}:{zone[3:]}' if zone else ''}"


def shown(value: Any) -> str:
    """A value for a person, shortened."""
    text = _plainly(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _plainly(value: Any) -> str:
    """A value without the names of Python's types."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {_plainly(inner)}' for name, inner in value.items())}}}"  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return f"[{', '.join(map(_plainly, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    return repr(value) if isinstance(value, str) else str(value)


def instant_reader(field: InstantField, *, of_event: bool = True) -> InstantReader:
    """A function that reads the values of a column as instants in UTC.

    Args:
        field: Of the mapping.
        of_event: Whether it is the time when something happened; a bound of a period may be far away.

    The reader raises:
        UnreadableValueError: The value is not an instant, or could be more than one.
    """
    zone = ZoneInfo(field.zone) if field.zone else None
    unit = UNIX_FORMATS.get(field.format)

    def read(value: Any) -> datetime:
        if type(value) is datetime:
            found = value
        elif value is None or value == "":
            raise UnreadableValueError("is empty")
        elif isinstance(value, datetime):  # a subclass, as pandas has one
            found = datetime.combine(value.date(), value.timetz())
        elif isinstance(value, date):
            raise UnreadableValueError(f"{value} has no time of day")
        elif unit is not None:
            return _since_epoch(value, unit)
        elif isinstance(value, str):
            found = _from_iso(value.strip()) if field.format == "iso" else _from_format(value.strip(), field.format)
        else:
            raise UnreadableValueError(f"{shown(value)} is a number; set format: {' or '.join(UNIX_FORMATS)}")
        instant = in_utc(found, zone)
        if of_event and not _FIRST <= instant < _END:
            raise UnreadableValueError(
                f"{shown(value)} is not in the years 2000 to 2100: another unit, or a wrong date"
            )
        return instant

    return read


def in_utc(found: datetime, zone: ZoneInfo | None) -> datetime:
    """A time in UTC.

    Args:
        found: With an offset, or without one.
        zone: Of times without one.

    Raises:
        UnreadableValueError: It could be more than one instant, or is none.
    """
    if found.tzinfo is UTC:
        return found
    try:
        if found.tzinfo is not None:
            return found.astimezone(UTC)
        if zone is None:
            raise UnreadableValueError(f"{found} has no time zone; set zone: in the mapping")
        earlier, later = (found.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    except OverflowError:
        raise UnreadableValueError(f"{found} is out of range") from None
    if earlier < later:
        raise UnreadableValueError(f"{found} occurred twice in {zone}; write it with its offset")
    if earlier > later:
        raise UnreadableValueError(f"{found} never occurred in {zone}")
    return earlier


def _from_iso(text: str) -> datetime:
    try:
        return read_iso(text)
    except ValueError as error:
        reason = str(error)
    except OverflowError:
        reason = "is out of range"
    raise UnreadableValueError(f"{shown(text)} {reason}")


def _from_format(text: str, form: str) -> datetime:
    names = _ZONE_NAMES if "%Z" in form.replace("%%", "") else ()
    for name in names:
        try:
            found = datetime.strptime(text, _without_zone_name(form, name))  # noqa: DTZ007 - the name is its zone
        except ValueError:
            continue
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found
    try:
        if not names:
            return datetime.strptime(text, form)  # noqa: DTZ007 - a zone is asked for where it is used
    except ValueError:
        pass
    known = f", with {', '.join(names)} for %Z (other names mean several zones; write offsets, %z)" if names else ""
    raise UnreadableValueError(f"{shown(text)} is not written as {form}{known}")


def _without_zone_name(form: str, name: str) -> str:
    return re.sub(r"%(.)", lambda found: name if found[1] == "Z" else found[0], form)


def _since_epoch(value: Any, per_second: int) -> datetime:
    if isinstance(value, str):
        text = value.strip()
        if not _PLAIN.fullmatch(text):
            raise UnreadableValueError(
                f"{shown(value)} is in scientific notation and may be rounded; write its digits"
                if re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+", text)
                else f"{shown(value)} is not a number in plain digits"
            )
        number = Decimal(text)
    elif isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise UnreadableValueError(f"{shown(value)} is not a number")
    else:
        if isinstance(value, ShortFloat):
            raise UnreadableValueError(f"{value} was rounded to four bytes; export it as a whole number or as text")
        number = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
        if isinstance(value, Decimal) and value.is_finite() and is_rounded(value):
            raise UnreadableValueError(f"{value} is in scientific notation and may be rounded; write its digits")
    if number.is_finite() and number.adjusted() < 30:
        instant = _after_epoch(number, per_second)
        if instant is not None and _FIRST <= instant < _END:
            return instant
    raise UnreadableValueError(f"{shown(value)} is not in the years 2000 to 2100{_better_unit(number)}")


def is_rounded(value: Decimal) -> bool:
    """Whether a number was written with an exponent that stands for digits which are not there, as 1.79E+12 is."""
    exponent = value.as_tuple().exponent
    return isinstance(exponent, int) and exponent > 0


def _after_epoch(number: Decimal, per_second: int) -> datetime | None:
    try:
        return _EPOCH + timedelta(microseconds=int(number * 1_000_000 / per_second))
    except OverflowError:
        return None


def _better_unit(number: Decimal) -> str:
    if not number.is_finite() or number.adjusted() >= 30:
        return ""
    for name, per_second in UNIX_FORMATS.items():
        instant = _after_epoch(number, per_second)
        if instant is not None and _FIRST <= instant < _END:
            return f"; as {name} it would be {instant.isoformat()}, so set format: {name} if that is its unit"
    return ""
