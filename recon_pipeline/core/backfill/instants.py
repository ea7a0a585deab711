"""Instants as exports write them, read without guessing: a time without a zone, also in the mapping, is rejected.

A local time that occurs twice or never (daylight saving) is rejected too: it could be billed in the wrong period.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

from recon_pipeline.core.backfill.fields import InstantField

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE_ONLY = re.compile(r"\d{4}-?\d\d-?\d\d|\d{4}-?W\d\d-?\d?")
_UNIX_UNITS = {"unix_seconds": 1_000_000, "unix_milliseconds": 1_000}
_LARGEST_MICROSECONDS = 60_000_000_000_000_000
"""The year 3871: a later one is a number in another unit."""
_LONGEST_SHOWN = 80

InstantReader = Callable[[Any], datetime]


class UnreadableValueError(ValueError):
    """Why a value cannot be read, as the end of a sentence that begins with the name of the field."""


def shown(value: Any) -> str:
    """A value for a person, shortened."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def instant_reader(field: InstantField) -> InstantReader:
    """A function that reads the values of a column as instants in UTC.

    The reader raises:
        UnreadableValueError: The value is not an instant, or could be more than one.
    """
    zone = ZoneInfo(field.zone) if field.zone else None
    unit = _UNIX_UNITS.get(field.format)

    def read(value: Any) -> datetime:
        if type(value) is datetime:
            found = value
        elif value is None or value == "":
            raise UnreadableValueError("is empty")
        elif isinstance(value, datetime):  # a subclass, as pandas has one
            found = datetime.fromisoformat(value.isoformat())
        elif isinstance(value, date):
            raise UnreadableValueError(f"{value} has no time of day")
        elif unit is not None:
            return _since_epoch(value, unit)
        elif isinstance(value, str):
            found = _from_iso(value.strip()) if field.format == "iso" else _from_format(value.strip(), field.format)
        else:
            raise UnreadableValueError(f"{shown(value)} is a number; set format: unix_seconds or unix_milliseconds")
        return _in_utc(found, zone)

    return read


def _in_utc(found: datetime, zone: ZoneInfo | None) -> datetime:
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
    if _DATE_ONLY.fullmatch(text):
        raise UnreadableValueError(f"{text!r} has no time of day")
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC") + "+00:00" if text.endswith(" UTC") else text)
    except ValueError:
        raise UnreadableValueError(f"{shown(text)} is not an ISO 8601 time; set format: in the mapping") from None


def _from_format(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007 - a zone is asked for where it is used
    except ValueError:
        raise UnreadableValueError(f"{shown(text)} is not written as {form}") from None


def _since_epoch(value: Any, microseconds: int) -> datetime:
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Decimal)):
        raise UnreadableValueError(f"{shown(value)} is not a number")
    try:
        count = Decimal(str(value)) * microseconds
    except InvalidOperation:
        raise UnreadableValueError(f"{shown(value)} is not a number") from None
    if not count.is_finite() or abs(count) > _LARGEST_MICROSECONDS:
        raise UnreadableValueError(f"{shown(value)} is out of range")
    return _EPOCH + timedelta(microseconds=int(count))
