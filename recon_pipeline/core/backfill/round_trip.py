"""Rows that were not inserted, written so that the same mapping reads them again, value for value.

Invariant: `value_of` undoes `kinds_in`, and `unguarded` undoes `guarded`. JSON and CSV have fewer types than Parquet
and Postgres: what they cannot distinguish is named beside the row, in its column `recon_types`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from recon_pipeline.core.backfill.cells import is_there
from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.exact_json import Doubled, decode, encode
from recon_pipeline.core.backfill.instants import FineInstant, ShortFloat, UnreadableValueError

KIND, TYPES, TEXT = "recon_kind", "recon_types", "recon_text"
"""What a row that comes back is known by; the types of its values; the text of what was no row."""
OWN = (KIND, "recon_source", "recon_line", "recon_reasons")
"""What is written before the columns of a row."""

_JSON, _NULL, _LACKING = "json", "null", "missing"
_TOLD = (str, int, bool, type(None), Decimal, UUID, Doubled)
"""What is read from JSON as it was."""
_NANOSECONDS = re.compile(r"\.[0-9]{6}(?P<last>[0-9]{3})")
_RUNS = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""How a cell begins that a spreadsheet takes for a formula (OWASP, CSV injection), also behind marks of ours."""
_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*")


@dataclass(frozen=True)
class Foreign:
    """A value, as text, of a type that no field is read from."""

    text: str

    def __str__(self) -> str:
        return self.text


def row_as_text(row: Row | Unreadable) -> str:
    """A row as JSON, to be stored, shown and read again; pure ASCII, so that Postgres can store all of it."""
    if isinstance(row, Unreadable):
        return json.dumps(row.text)
    values = dict(row)
    kinds = kinds_in(values)
    try:
        return encode({**values, TYPES: kinds} if kinds else values)
    except UnreadableValueError:
        return json.dumps({name: f"a value of type {type(value).__name__}" for name, value in values.items()})


def kinds_in(value: Any) -> Any:
    """The kinds of values that JSON cannot distinguish: of one, or by name or position of those in it; else None."""
    if isinstance(value, _TOLD):
        return None
    if isinstance(value, Mapping):
        found = {str(name): kinds_in(inner) for name, inner in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return {name: kind for name, kind in found.items() if kind} or None
    if isinstance(value, (list, tuple)):
        return kinds_in(dict(enumerate(value)))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    kinds = ((ShortFloat, "short float"), (float, "float"), (bytes, "bytes"), (datetime, "timestamp"), (date, "date"))
    return next((kind for type_, kind in kinds if isinstance(value, type_)), "other")


def value_of(value: Any, kind: Any) -> Any:
    """A value as it was before it became JSON or a cell; what a person has put in its place stays as it is."""
    try:
        if isinstance(kind, Mapping):
            inside = decode(value) if isinstance(value, str) else value
            return _container(inside, kind)  # pyright: ignore[reportUnknownArgumentType]
        return _READ[kind](value) if kind in _READ else value
    except (ArithmeticError, TypeError, ValueError):
        return value


def values_of_row(row: Row) -> dict[str, Any]:
    """The values of a row as they were; without what is written beside them."""
    kinds: Any = row.get(TYPES)
    if isinstance(kinds, str) and kinds:
        kinds = value_of(kinds, _JSON)
    if not isinstance(kinds, Mapping):
        kinds = {}
    return {
        name: value_of(value, kinds.get(name))  # pyright: ignore[reportUnknownMemberType]
        for name, value in row.items()
        if name not in OWN and name != TYPES and not (value == "" and kinds.get(name) == _LACKING)  # pyright: ignore[reportUnknownMemberType]
    }


def whole_row(raw: Any, mapped: Sequence[str]) -> dict[str, Any]:
    """A stored row for a file: with every column that the mapping names, so that the file does not lack one.

    Args:
        raw: As `row_as_text` stored it.
        mapped: Names and paths.
    """
    row: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {TEXT: raw}  # pyright: ignore[reportUnknownArgumentType]
    return row | {name.split(".")[0]: None for name in mapped if not is_there(name, row)}


def fits_csv(row: Mapping[str, Any]) -> bool:
    """Whether the names of a row can be the first line of a CSV file."""
    return all(name.strip() and _is_plain(name) for name in row)


def as_cells(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, str]:
    """A row of `whole_row` as the cells of a CSV file that a spreadsheet may open.

    Args:
        row: Its own columns first.
        columns: Of the file.
    """
    kinds: dict[str, Any] = {name: _LACKING for name in columns if name not in row and name not in (TEXT, TYPES)}
    kinds |= row.get(TYPES) or {}
    cells: dict[str, str] = {}
    for name, value in row.items():
        if value is None:
            kinds[name] = _NULL
        elif isinstance(value, str) and _is_plain(value):
            cells[name] = value
        elif name != TYPES:
            cells[name] = encode(value)
            if name not in OWN and (isinstance(value, str) or name not in kinds):
                kinds[name] = _JSON
    if kinds:
        cells[TYPES] = encode(kinds)
    return {guarded(name): guarded(cells.get(name, "")) for name in columns}


def guarded(text: str) -> str:
    """A text that no spreadsheet runs: if it begins like a formula, with a mark before it."""
    return f"'{text}" if _RUNS.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(text: str) -> str:
    """The text that was guarded."""
    return text[1:] if text[:1] == "'" and _RUNS.match(text, 1) else text


def _container(inside: Any, kinds: Mapping[str, Any]) -> Any:
    if isinstance(inside, Mapping):
        return {name: value_of(value, kinds.get(name)) for name, value in inside.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(inside, (list, tuple)):
        return [value_of(value, kinds.get(str(at))) for at, value in enumerate(inside)]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return inside


def _is_plain(text: str) -> bool:
    """Whether UTF-8 and CSV can represent it."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= one <= "\udfff" for one in text))


def _instant(value: str) -> datetime:
    found, nanoseconds = datetime.fromisoformat(value), _NANOSECONDS.search(value)
    return FineInstant.of(found, int(nanoseconds["last"])) if nanoseconds else found


def _nothing(value: object) -> Any:
    return None if value == "" else value


def _float(value: object) -> float:
    return float(str(value))


def _foreign(value: object) -> Foreign:
    return Foreign(str(value))


_READ: dict[str, Callable[[Any], Any]] = {
    _JSON: decode,
    _NULL: _nothing,
    "float": _float,
    "short float": ShortFloat,
    "bytes": bytes.fromhex,
    "timestamp": _instant,
    "date": date.fromisoformat,
    "other": _foreign,
}
