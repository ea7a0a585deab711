"""ISO 8601 as it occurs: with week and ordinal dates, with 24:00:00, with leap seconds, and with a small z. Pure."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, timezone

_DATE_ONLY = re.compile(
    r"(\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d?|\d{4}-?\d{3}|\d{4}-\d\d)([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_WHOLE = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d-?\d|(?P<year>\d{4})-?(?P<day>\d{3}))[Tt ]"
    r"(?P<hour>\d\d):?(?P<minute>\d\d)(:?(?P<second>\d\d)([.,](?P<fraction>\d+))?)?"
    r" ?(?P<zone>[Zz]|UTC|GMT|(?P<sign>[+-])(?P<hours>\d\d)(:?(?P<minutes>\d\d))?)?",
    re.ASCII,
)
_SECOND, _DAY = timedelta(seconds=1), timedelta(days=1)


def read_iso(text: str) -> datetime:
    """A time as it is written, without a zone if it has none; what is finer than a microsecond is cut off.

    A leap second and 24:00:00 are the first instant of the next day, as Postgres takes them.

    Raises:
        ValueError: With the end of a sentence that begins with the text.
        OverflowError: It is after the year 9999.
    """
    # Python takes every character for the one between day and time: of 2025-05-17-07:00, a date with its offset, it
    # would make seven o'clock, and a day for a week that names none.
    if text[10:11] in ("T", "t", " ") and text[4] == text[7] == "-":
        with suppress(ValueError):
            return datetime.fromisoformat(text)
    if _DATE_ONLY.fullmatch(text):
        raise ValueError("has no time of day")
    parts = _WHOLE.fullmatch(text)
    if parts is None:
        raise ValueError("is not an ISO 8601 time; set format: in the mapping")
    return _assembled(parts)


def _assembled(parts: "re.Match[str]") -> datetime:
    hour, minute, second = (int(parts[name] or 0) for name in ("hour", "minute", "second"))
    micros = int((parts["fraction"] or "0")[:6].ljust(6, "0"))
    later = timedelta(0)
    if hour == 24 and not (minute or second or int(parts["fraction"] or 0)):
        hour, later = 0, _DAY
    if second == 60 and minute == 59:
        second, later = 59, _SECOND
    try:
        found = datetime.combine(_day(parts), time(hour, minute, second, micros, tzinfo=_zone(parts)))
    except ValueError:
        raise ValueError("is no date or time that exists") from None
    if later is _SECOND and found.tzinfo is not None and found.astimezone(UTC).hour != 23:
        raise ValueError("has a 60th second where no leap second can be: they end a day of UTC")
    return found + later


def _day(parts: "re.Match[str]") -> date:
    if parts["day"] is None:
        return date.fromisoformat(parts["date"])
    first = date(int(parts["year"]), 1, 1)
    found = first + timedelta(days=int(parts["day"]) - 1)
    if found.year != first.year:
        raise ValueError
    return found


def _zone(parts: "re.Match[str]") -> timezone | None:
    if parts["zone"] is None:
        return None
    if parts["sign"] is None:
        return UTC
    offset = timedelta(hours=int(parts["hours"]), minutes=int(parts["minutes"] or 0))
    return timezone(-offset if parts["sign"] == "-" else offset)
