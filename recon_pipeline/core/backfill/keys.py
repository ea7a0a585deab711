"""The values of a primary key, written in one way, whatever program wrote them.

Invariant: the same row gives the same request id, from CSV, NDJSON, Parquet or a table. 7, 7.0 and "7.0" are one
number; a time is one instant however it is written. If two writings may or may not be one value, the row is rejected.
"""

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from recon_pipeline.core.backfill.fields import InstantField
from recon_pipeline.core.backfill.identifiers import identifier, is_uuid_in_capitals
from recon_pipeline.core.backfill.instants import (
    FineInstant,
    UnreadableValueError,
    in_utc,
    instant_reader,
    shown,
)
from recon_pipeline.core.backfill.iso_times import read_iso

_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_ENDS_WITH_ZERO = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9]0+")
_INSTANT = re.compile(
    r"([0-9]{4}-([0-9]{2}-[0-9]{2}|W[0-9]{2}-[0-9]|[0-9]{3})[Tt ]|[0-9]{4}([0-9]{3,4}|W[0-9]{3})[Tt])"
    r"[0-9]{2}:?[0-9]{2}(:?[0-9]{2}([.,](?P<fraction>[0-9]+))?)?.*"
)

KeyReader = Callable[[Any], str]


def key_reader(column: str, timestamp: InstantField) -> KeyReader:
    """A function that reads the values of one column of a primary key.

    Args:
        column: Its name.
        timestamp: Of the mapping; its zone is that of times without one, and its format is read if it is this column.

    The reader raises:
        UnreadableValueError: The value is empty, or may name different things.
    """
    zone = ZoneInfo(timestamp.zone) if timestamp.zone else None
    if column == timestamp.column and "%" in timestamp.format:
        read_time = instant_reader(timestamp)
        return lambda value: _instant(read_time(value), 0)

    def read(value: Any) -> str:
        if isinstance(value, datetime):
            fine = value.nanosecond if isinstance(value, FineInstant) else int(getattr(value, "nanosecond", 0))
            return _instant(_in_utc(datetime.combine(value.date(), value.timetz()), zone), fine)
        if isinstance(value, date):
            return value.isoformat()
        if is_uuid_in_capitals(value):
            return value.lower()
        if type(value) is str and value and value[0] in "-0123456789":
            return _text(value, zone)
        return identifier(value)

    return read


def _text(value: str, zone: ZoneInfo | None) -> str:
    whole = _WHOLE_NUMBER.fullmatch(value)
    if whole is not None:
        return "0" if whole[1] == "-0" else whole[1]
    if _ENDS_WITH_ZERO.fullmatch(value):
        raise UnreadableValueError(
            f"{shown(value)} may be written without the zero at its end by another program, and the row would get "
            "another id; write it so, or choose another key"
        )
    time = _INSTANT.fullmatch(value)
    if time is None:
        return identifier(value)
    try:
        found = read_iso(value)
    except (ValueError, OverflowError):
        return identifier(value)  # text that only begins like a time
    fraction = time["fraction"] or ""
    if fraction[9:].strip("0"):
        raise UnreadableValueError(f"{shown(value)} is finer than a nanosecond")
    return _instant(_in_utc(found, zone), int(fraction[6:9].ljust(3, "0")))


def _in_utc(found: datetime, zone: ZoneInfo | None) -> datetime:
    if found.tzinfo is None and zone is None:
        raise UnreadableValueError(
            f"{found} has no time zone, so the row could get another id from another export; write it with its offset, "
            "or set zone: for event_timestamp in the mapping"
        )
    return in_utc(found, zone)


def _instant(instant: datetime, nanosecond: int) -> str:
    if nanosecond:
        return FineInstant.of(instant, nanosecond).isoformat()
    return instant.isoformat()
