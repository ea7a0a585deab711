"""The mapping: which column of an export is which column of the log, with units, constants, formats and zones.

It is a small YAML file that a person writes at night, so each mistake is reported with its place. Knows nothing of
files and rows.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from recon_pipeline.core.backfill.fields import STRICT, Instant, PeriodField, Quantity, QuantityField, Text
from recon_pipeline.core.errors import ConfigurationError

NOTHING_INSERTED = "No event was inserted and no counter was changed."
OWN_PREFIX = "recon_"
"""Columns that begin with this are reserved, as `recon rejected --output` writes them; they are never copied."""

_NO_COLUMNS = {"primary_key", "period", "allow", "encoding", "delimiter"}
"""What a mapping says otherwise than by the column of that name."""
_ADVICE = "Fix the mapping; docs/replay.md shows one for each common shape of export."


class MappingSpec(BaseModel):
    """The content of a mapping; see docs/replay.md.

    Attributes:
        request_id: The source's own; if it is empty, one is made from `primary_key`.
        primary_key: Columns that identify a row of the source for ever; request ids are made from them.
        period_start: With `period_end`; without both the period is found (`periods.py`).
        period: Which calendar months, where nothing else tells the period.
        allow: Which odd times are no reason to reject a row.
        metadata: A column with a JSON object, copied unchanged.
        encoding: Of text files; a byte order mark of UTF-8 is always understood.
        delimiter: Of CSV files; a comma, or a tab in `.tsv`, if not given.
    """

    model_config = STRICT

    gateway_name: Text
    gateway_customer_id: Text
    usage_type: Text
    request_id: Text | None = None
    primary_key: tuple[str, ...] = ()
    quantity: Quantity = QuantityField(value=1)
    event_timestamp: Instant
    period_start: Instant | None = None
    period_end: Instant | None = None
    period: PeriodField = PeriodField()
    allow: tuple[Literal["time_outside_period", "time_in_future"], ...] = ()
    metadata: str | None = Field(default=None, min_length=1)
    encoding: str = "utf-8"
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)

    @field_validator("primary_key", "allow", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except (LookupError, UnicodeError):
            raise ValueError(
                f"{encoding!r} is not an encoding; write one like utf-8, latin-1, cp1252 or utf-16"
            ) from None
        return encoding

    @model_validator(mode="after")
    def _whole(self) -> "MappingSpec":
        if self.request_id is None and not self.primary_key:
            raise ValueError(
                "neither request_id nor primary_key is given: without them the same row could be counted twice"
            )
        if self.request_id is not None and self.request_id.value is not None:
            raise ValueError("request_id cannot be a constant: every row would be the same request")
        if (self.period_start is None) != (self.period_end is None):
            raise ValueError("period_start and period_end go together: give both, or none")
        if self.maps_period and "period" in self.model_fields_set:
            raise ValueError("period_start and period_end give each row its period: leave out period")
        return self

    @property
    def maps_period(self) -> bool:
        """Whether each row has its period in its own columns."""
        return self.period_start is not None

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it names."""
        fields = (
            self.gateway_name,
            self.gateway_customer_id,
            self.usage_type,
            self.request_id,
            self.quantity,
            self.event_timestamp,
            self.period_start,
            self.period_end,
        )
        named = {field.column for field in fields if field is not None and field.column is not None}
        return frozenset(named | set(self.primary_key) | ({self.metadata} if self.metadata else set()))


def parse_mapping_text(text: str, *, name: str) -> dict[str, Any]:
    """Read the YAML of a mapping.

    Raises:
        ConfigurationError: It is not YAML, or not a list of names and values.
    """
    try:
        given: Any = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{name} is not YAML: {reason}.", changed=NOTHING_INSERTED, fix=_ADVICE) from error
    if not isinstance(given, dict):
        raise ConfigurationError(f"{name} is not a mapping of names to columns.", changed=NOTHING_INSERTED, fix=_ADVICE)
    return {str(key): value for key, value in given.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def parse_mapping(given: Mapping[str, Any]) -> MappingSpec:
    """Validate a mapping.

    Raises:
        ConfigurationError: With every mistake and its place.
    """
    try:
        return MappingSpec.model_validate(dict(given))
    except ValidationError as error:
        mistakes = "; ".join(_mistake(one["loc"], one["msg"], one["type"]) for one in error.errors())
        raise ConfigurationError(f"The mapping is wrong: {mistakes}.", changed=NOTHING_INSERTED, fix=_ADVICE) from error


def default_mapping(columns: Iterable[str]) -> MappingSpec:
    """The mapping of an export whose columns are named as those of `billing_usage_events`.

    Raises:
        ConfigurationError: Required columns are missing.
    """
    there = set(columns)
    names = set(MappingSpec.model_fields) - _NO_COLUMNS
    needed = ("gateway_name", "gateway_customer_id", "usage_type", "request_id", "event_timestamp")
    missing = [name for name in needed if name not in there]
    if missing:
        raise ConfigurationError(
            f"The source has no column {', '.join(missing)}, and no mapping describes its columns "
            f"({shown_columns(there)}).",
            changed=NOTHING_INSERTED,
            fix="Write a mapping and give it with --mapping FILE; docs/replay.md shows one for each common shape.",
        )
    return parse_mapping({name: name for name in names & there})


def require_columns(spec: MappingSpec, columns: Iterable[str], *, source: str) -> None:
    """Refuse a mapping that names columns which the source does not have.

    Raises:
        ConfigurationError: With the existing columns.
    """
    there = list(columns)
    missing = sorted(spec.columns - set(there))
    if missing:
        names = ", ".join(_with_guess(name, there) for name in missing)
        raise ConfigurationError(
            f"{source} has no column {names}. It has {shown_columns(there)}.",
            changed=NOTHING_INSERTED,
            fix="Fix the names in the mapping; capitals and spaces count.",
        )


def shown_columns(columns: Iterable[str]) -> str:
    """Column names for a person, at most 30."""
    names = sorted(columns)
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _with_guess(name: str, there: list[str]) -> str:
    close = get_close_matches(name, there, n=1)
    return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)


def _mistake(place: tuple[int | str, ...], message: str, kind: str) -> str:
    said = message.removeprefix("Value error, ")
    where = ".".join(map(str, place))
    if kind == "extra_forbidden":
        known = get_close_matches(str(place[-1]), MappingSpec.model_fields, n=1)
        said = "no such name" + (f"; did you mean {known[0]}?" if known else "")
    return f"{where}: {said}" if where else said
