"""The time of one event as programs write it: exact, or cut or rounded to a millisecond or a second.

pandas, spreadsheets and JSON of JavaScript keep less than the log's microseconds. Two exact times are two events; an
exact one and its own cut are one. The statements that look an event up in the log by its time say the same.
"""

from datetime import datetime, timedelta

_UNITS = (1_000, 1_000_000)
"""Microseconds of a millisecond and of a second."""


def writings(instant: datetime) -> set[datetime]:
    """An instant, and what becomes of it where it is cut or rounded, half a unit up or down."""
    found = {instant}
    for unit in _UNITS:
        beyond = instant.microsecond % unit
        cut = instant - timedelta(microseconds=beyond)
        found |= {cut, cut + timedelta(microseconds=unit) if 2 * beyond >= unit else cut}
    return found
