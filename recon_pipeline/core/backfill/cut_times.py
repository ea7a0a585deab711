"""The time of one event as programs write it: exact, or cut or rounded to a millisecond or a second.

pandas, spreadsheets and JavaScript's JSON keep less than the log's microseconds. Two exact times are two events; an
exact time and its own cut are one. The statements that look up an event in the log by its time have the same rule.
"""

from datetime import datetime, timedelta

_UNITS = (1_000, 1_000_000)
"""Microseconds of a millisecond and of a second."""


def writings(instant: datetime) -> set[datetime]:
    """An instant, and the same instant cut or rounded, half a unit up or down."""
    found = {instant}
    for unit in _UNITS:
        beyond = instant.microsecond % unit
        cut = instant - timedelta(microseconds=beyond)
        found |= {cut, cut + timedelta(microseconds=unit) if 2 * beyond >= unit else cut}
    return found
