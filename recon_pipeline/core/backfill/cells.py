"""The cells of rows, found by the name of their column or by a path into it; a word for null is an empty cell.

A path is names with points between them: `data.tokens` is the entry `tokens` of the objects in column `data`, which may
be objects of NDJSON, structs of Parquet, or texts with JSON. A column that has the whole as its name comes first.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from recon_pipeline.core.backfill.columns import Coded, Columns, Row, Unreached, values_of
from recon_pipeline.core.backfill.exact_json import Doubled, TooDeepError, decode
from recon_pipeline.core.backfill.instants import shown


class Cells:
    """Reads the cells of the columns that a mapping names.

    Args:
        nulls: Words for null.
    """

    def __init__(self, nulls: Iterable[str]) -> None:
        self._nulls = frozenset(nulls)

    def of(self, rows: Sequence[Row], name: str) -> Sequence[Any]:
        """A column's values; None where a row has none, or a word for null, or NaN; `Unreached` where a path breaks."""
        values = self._raw(rows, name)
        if isinstance(values, Coded):
            return Coded(self._without_nulls(values.distinct), values.places)
        return self._without_nulls(values)

    def _without_nulls(self, values: Sequence[Any]) -> Sequence[Any]:
        types = set(map(type, values))
        if str in types and (types - {str, type(None)} or not self._nulls.isdisjoint(values)):
            nulls = self._nulls
            values = [None if type(value) is str and value in nulls else value for value in values]
        if not types.isdisjoint((float, Decimal)):
            values = [None if value.__class__ in (float, Decimal) and value != value else value for value in values]
        return values

    def _raw(self, rows: Sequence[Row], name: str) -> Sequence[Any]:
        """A column's values as they were read, by its name or by a path."""
        if "." not in name:
            return values_of(rows, name)
        if isinstance(rows, Columns):
            if name in rows.values:
                return rows.values[name]
            head, path = _parted(name, rows.values)
            return [self._at(value, path) for value in values_of(rows, head)]
        partings = [(name, ()), *_partings(name)]
        return [self._by_path(row, partings) for row in rows]

    def _by_path(self, row: Row, partings: Sequence[tuple[str, Sequence[str]]]) -> Any:
        for head, path in partings:
            if head in row:
                return self._at(row[head], path)
        return None

    def _at(self, value: Any, path: Sequence[str]) -> Any:
        """What is found at a path: None if there is nothing, `Unreached` if something on it cannot be taken apart."""
        for name in path:
            if value.__class__ is dict:  # as nearly all are, of millions
                value = value.get(name)
                continue
            if value is None or value in ("", []) or (type(value) is str and value in self._nulls):
                return None
            if type(value) is float and value != value:
                return None
            value = _step(value, name)
        return value


def is_there(name: str, columns: Iterable[str]) -> bool:
    """Whether a name, or the column in which its path begins, is among the columns."""
    there = set(columns)
    return name in there or ("." in name and _parted(name, dict.fromkeys(there))[0] in there)


def _parted(name: str, columns: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """The longest beginning of a path that is a column, and the names that follow it."""
    partings = _partings(name)
    return next((parting for parting in partings if parting[0] in columns), partings[-1])


def _partings(name: str) -> list[tuple[str, Sequence[str]]]:
    """All ways to take a path for a column and the names that follow it, the longest column first."""
    names = name.split(".")
    return [(".".join(names[:length]), names[length:]) for length in range(len(names) - 1, 0, -1)]


def _step(value: Any, name: str) -> Any:
    """The entry of that name or place."""
    if isinstance(value, str):
        try:
            value = decode(value)
        except TooDeepError as error:
            return Unreached(str(error))
        except ValueError:
            return Unreached(f"{shown(value)} is no JSON")
        if value is None or value == []:
            return None
    if isinstance(value, Mapping):
        return value.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if isinstance(value, Doubled):
        found = [inner for key, inner in value.pairs if key == name]
        return Unreached(f"{shown(value)} has {name!r} twice") if len(found) > 1 else next(iter(found), None)
    if isinstance(value, (list, tuple)) and name.isascii() and name.isdigit():
        return value[int(name)] if int(name) < len(value) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value if isinstance(value, Unreached) else Unreached(f"{shown(value)} has no names")
