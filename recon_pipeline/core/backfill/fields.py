"""The values in a mapping: a text, a quantity, an instant, each from a column or constant.

Each rejects invalid input with a message for the person who wrote the mapping.
"""

import zoneinfo
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

STRICT = ConfigDict(extra="forbid", frozen=True)
"""An unknown name is an error; a parsed mapping does not change."""


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
    """An identifier."""

    value: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> "TextField":
        if (self.column is None) == (self.value is None):
            raise ValueError("give the name of a column, or {value: ...} for a constant, and not both")
        return self


class QuantityField(_Field):
    """A number of units: the column times `multiply`, divided by `divide`; rounded only if `round` is given."""

    value: Annotated[int, Field(strict=True, ge=1)] | None = None
    multiply: Annotated[int, Field(strict=True, ge=1)] = 1
    divide: Annotated[int, Field(strict=True, ge=1)] = 1
    round: Literal["up", "down"] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "QuantityField":
        if (self.column is None) == (self.value is None):
            raise ValueError("give the name of a column, or {value: ...} for a constant, and not both")
        if self.value is not None and self.has_unit:
            raise ValueError("a constant takes no multiply, divide or round")
        return self

    @property
    def has_unit(self) -> bool:
        """Whether the log counts in another unit than the column."""
        return (self.multiply, self.divide, self.round) != (1, 1, None)


class InstantField(BaseModel):
    """An instant: ISO 8601, seconds or milliseconds since 1970, or a strptime format; `zone` for times without one."""

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
        if form not in ("iso", "unix_seconds", "unix_milliseconds") and "%" not in form:
            raise ValueError(
                f"{form!r} is neither iso, unix_seconds, unix_milliseconds, nor a format like %d/%m/%Y %H:%M:%S"
            )
        return form


class PeriodField(BaseModel):
    """How a period is found that neither log, counters nor a subscription tell: by calendar months of a zone."""

    model_config = STRICT

    calendar_month: str = "UTC"

    @field_validator("calendar_month")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        return _required_zone(zone)


def _required_zone(zone: str) -> str:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{zone!r} is not a time zone; write one like UTC or Europe/Berlin") from None
    return zone


Text = Annotated[TextField, BeforeValidator(_from_shorthand)]
Quantity = Annotated[QuantityField, BeforeValidator(_from_shorthand)]
Instant = Annotated[InstantField, BeforeValidator(_from_shorthand)]
