"""Instants as a person writes them: a duration from now, or a date and time."""

import re
from datetime import UTC, datetime, timedelta

from recon_pipeline.core.errors import ConfigurationError

_DURATION = re.compile(r"(?P<count>[0-9]{1,5})(?P<unit>[mhd])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LAST_YEAR = 9998
_EXAMPLE = "Write it like 30m, 2h, 3d or 2026-11-25T06:00Z (without an offset: UTC)."


def parse_until(text: str, *, now: datetime) -> datetime:
    """The instant that a person means by `30m`, `2h`, `3d` (from now) or by an ISO 8601 date and time.

    Args:
        text: As given.
        now: By the clock that later decides whether the instant has come.

    Raises:
        ConfigurationError: It is neither, or it is not in the future.
    """
    duration = _DURATION.fullmatch(text)
    if duration is not None:
        until = now + int(duration["count"]) * _UNITS[duration["unit"]]
    else:
        try:
            given = datetime.fromisoformat(text)
            until = given.astimezone(UTC) if given.tzinfo else given.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            raise ConfigurationError(f"{text!r} is neither a duration nor a date and time.", fix=_EXAMPLE) from None
    if until <= now or until.year > _LAST_YEAR:
        raise ConfigurationError(
            f"{text!r} is not in the future, or after {_LAST_YEAR}; now it is {now.astimezone(UTC):%Y-%m-%dT%H:%M}Z.",
            fix=_EXAMPLE,
        )
    return until
