"""The mapping: which column of an export is which column of the log, with units, constants, formats and zones.

It is a small YAML file that a person writes at night, so each mistake is reported with its place. Knows nothing of
files and rows.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from recon_pipeline.core.backfill.fields import STRICT, Instant, PeriodField, Quantity, Text
from recon_pipeline.core.errors import ConfigurationError

NOTHING_INSERTED = "No event was inserted and no counter was changed."
OWN_PREFIX = "recon_"
"""Columns that begin with this are reserved, as `recon rejected --output` writes them; they are never copied."""

NULLS = ("", "\\N", "NULL", "null", "None", "nan", "NaN", "<NA>", "NaT")
"""How MySQL, ClickHouse, Postgres, Python and pandas write null into text."""
_YAML_NULLS = ("null", "Null", "NULL", "~")
"""Words that YAML itself takes for null where they stand without quotes."""
_ADVICE = "Fix the mapping; docs/replay.md shows one for each common shape of export."


class MappingSpec(BaseModel):
    """The content of a mapping; see docs/replay.md.

    Attributes:
        request_id: The source's own; if it is empty, one is made from `primary_key`.
        primary_key: Columns that identify a row of the source for ever; request ids are made from them.
        quantity: It has no default: a row without one is rejected unless the mapping says how many units it is.
        period_start: With `period_end`; without both, also in a single row, the period is found (`periods.py`).
        period: Which calendar months, if nothing else determines the period.
        allow: Which odd times are no reason to reject a row.
        metadata: A column with a JSON object, copied unchanged.
        nulls: Words for null, in every column that is named here.
        skip_when: Rows with these values in these columns are left out: not events, and not rejected.
        encoding: Of text files; a byte order mark of UTF-8 is always understood.
        delimiter: Of CSV files; a comma, or a tab in `.tsv`, if not given.
        quote: `double`: cells may stand in quotation marks; `none`: backslashes escape. If not given: `none` in `.tsv`.
        skip: Patterns of names of files of a folder or glob that are left out.
    """

    model_config = STRICT

    gateway_name: Text
    gateway_customer_id: Text
    usage_type: Text
    request_id: Text | None = None
    primary_key: tuple[str, ...] = ()
    quantity: Quantity
    event_timestamp: Instant
    period_start: Instant | None = None
    period_end: Instant | None = None
    period: PeriodField = PeriodField()
    allow: tuple[Literal["time_outside_period", "time_in_future"], ...] = ()
    metadata: str | None = Field(default=None, min_length=1)
    nulls: tuple[str, ...] = NULLS
    skip_when: Mapping[str, tuple[Any, ...]] = {}
    encoding: str = "utf-8"
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    quote: Literal["none", "double"] | None = None
    skip: tuple[str, ...] = ()

    @field_validator("primary_key", "allow", "skip", mode="before")
    @classmethod
    def _one_or_more(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("nulls", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        words: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]  # pyright: ignore[reportUnknownArgumentType]
        found = [(_YAML_NULLS if word is None else (str(word),)) for word in words]
        return tuple(word for one in found for word in one)

    @field_validator("skip_when", mode="before")
    @classmethod
    def _one_or_more_values(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            raise ValueError("write the columns and their values, as in skip_when: {units: 0}")
        found: dict[Any, Any] = {
            name: tuple(value) if isinstance(value, (list, tuple)) else (value,)  # pyright: ignore[reportUnknownArgumentType]
            for name, value in given.items()  # pyright: ignore[reportUnknownVariableType]
        }
        if any(isinstance(value, (dict, list)) for values in found.values() for value in values):
            raise ValueError("a value is a text, a number, true, false or null")
        return found

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
        own = {self.metadata} if self.metadata else set[str]()
        return frozenset(named | set(self.primary_key) | set(self.skip_when) | own)


class _OneOfEachName(yaml.SafeLoader):
    """Refuses a name that is written twice: YAML would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The names and values of a part of a mapping."""
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name is not None and name != "<<" and name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is written twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse_mapping_text(text: str, *, name: str) -> dict[str, Any]:
    """Read the YAML of a mapping.

    Raises:
        ConfigurationError: It is not YAML, or not a list of names and values.
    """
    try:
        given: Any = yaml.load(text, _OneOfEachName)  # noqa: S506 - a safe loader
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


def shown_columns(columns: Iterable[str]) -> str:
    """Column names for a person, at most 30."""
    names = sorted(columns)
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _mistake(place: tuple[int | str, ...], message: str, kind: str) -> str:
    said = message.removeprefix("Value error, ")
    where = ".".join(map(str, place))
    if kind == "extra_forbidden":
        known = get_close_matches(str(place[-1]), MappingSpec.model_fields, n=1)
        said = "no such name" + (f"; did you mean {known[0]}?" if known else "")
    elif kind == "missing" and place == ("quantity",):
        said = "is missing; name its column, or write {value: 1} if each row is one unit"
    return f"{where}: {said}" if where else said
