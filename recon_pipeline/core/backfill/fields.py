"""The values in a mapping: a text, a quantity, an instant, each from a column or constant.

Each rejects invalid input with a message for the person who wrote the mapping.
"""

import re
import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

STRICT = ConfigDict(extra="forbid", frozen=True)
"""An unknown name is an error; a parsed mapping does not change."""


_SEPARATOR = r"^[^0-9A-Za-z+\-]$"
UNIX_FORMATS = {"unix_seconds": 1, "unix_milliseconds": 1_000, "unix_microseconds": 10**6, "unix_nanoseconds": 10**9}
"""Formats of instants that are numbers, with how many of them make a second."""


def _from_shorthand(given: Any) -> Any:
    """A bare name stands for a column."""
    return {"column": given} if isinstance(given, str) else given


class _Field(BaseModel):
    """A value: from a column, or the same for every row."""

    model_config = STRICT

    column: str | None = Field(default=None, min_length=1)

    @property
    def label(self) -> str:
        """How a reason names the place; empty for a constant."""
        return f" (column {self.column})" if self.column else ""


class TextField(_Field):
    """An identifier; `as_written` takes text that looks like a number of a spreadsheet (7.0, 1.79E+12) as it is."""

    value: str | None = Field(default=None, min_length=1)
    as_written: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "TextField":
        if (self.column is None) == (self.value is None):
            raise ValueError("give the name of a column, or {value: ...} for a constant, and not both")
        return self


class QuantityField(_Field):
    """A number of units: the column times `multiply`, divided by `divide`; rounded only if `round` is given.

    Attributes:
        default: The units of a row whose cell is empty; without it such a row is rejected.
        decimal: What stands before the fraction in texts; a point, or a comma if `thousands` is a point.
        thousands: What stands between groups of three digits in texts.
    """

    value: Annotated[int, Field(strict=True, ge=1)] | None = None
    default: Annotated[int, Field(strict=True, ge=1)] | None = None
    decimal: str | None = Field(default=None, pattern=_SEPARATOR)
    thousands: str | None = Field(default=None, pattern=_SEPARATOR)
    multiply: Annotated[int, Field(strict=True, ge=1)] = 1
    divide: Annotated[int, Field(strict=True, ge=1)] = 1
    round: Literal["up", "down"] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "QuantityField":
        if (self.column is None) == (self.value is None):
            raise ValueError("give the name of a column, or {value: ...} for a constant, and not both")
        if self.value is not None and (self.has_unit or (self.default, self.decimal, self.thousands) != (None,) * 3):
            raise ValueError("a constant takes no multiply, divide, round, default, decimal or thousands")
        if self.thousands is not None and self.thousands == self.decimal:
            raise ValueError("decimal and thousands are the same character")
        return self

    @property
    def has_unit(self) -> bool:
        """Whether the log counts in another unit than the column."""
        return (self.multiply, self.divide, self.round) != (1, 1, None)


class InstantField(BaseModel):
    """An instant: ISO 8601, a number since 1970, or a strptime format; `zone` for times without one."""

    model_config = STRICT

    column: str = Field(min_length=1)
    format: str = "iso"
    zone: str | None = None

    @property
    def label(self) -> str:
        """How a reason names the place."""
        return f" (column {self.column})"

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        return None if zone is None else _required_zone(zone)

    @field_validator("format")
    @classmethod
    def _known_format(cls, form: str) -> str:
        if form != "iso" and form not in UNIX_FORMATS and "%" not in form:
            raise ValueError(f"{form!r} is neither iso, {', '.join(UNIX_FORMATS)}, nor a format like %d/%m/%Y %H:%M:%S")
        if "%" in form:
            _require_whole(form)
        return form


class PeriodField(BaseModel):
    """How a period is found if neither log, counters nor a subscription show it: by calendar months of a zone."""

    model_config = STRICT

    calendar_month: str = "UTC"

    @field_validator("calendar_month")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        return _required_zone(zone)


def _require_whole(form: str) -> None:
    """Refuse a strptime format of which Python would fill in or ignore a part: a day, or the half of it."""
    parts = set(re.findall(r"%(.)", form.replace("%%", "")))
    if "c" in parts:
        return
    of_week = bool(parts & set("aAuw"))
    has_day = "x" in parts or (
        ("G" in parts and "V" in parts and of_week)
        or (parts & set("Yy") and ("j" in parts or (parts & set("UW") and of_week)))
        or (parts & set("Yy") and parts & set("mbB") and "d" in parts)
    )
    if not has_day:
        raise ValueError(f"{form!r} names no day: write year, month and day, as in %d/%m/%Y %H:%M:%S")
    if ("I" in parts) != ("p" in parts):
        raise ValueError(f"{form!r} does not say a.m. or p.m.: %I needs %p, and beside %H nothing reads %p")


def _required_zone(zone: str) -> str:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{zone!r} is not a time zone; write one like UTC or Europe/Berlin") from None
    return zone


Text = Annotated[TextField, BeforeValidator(_from_shorthand)]
Quantity = Annotated[QuantityField, BeforeValidator(_from_shorthand)]
Instant = Annotated[InstantField, BeforeValidator(_from_shorthand)]
