"""Rows of a piece of a source, read column by column, so that a value that many rows share is read once.

There are millions of rows, and most of their values repeat: the customer, the usage type, the period.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, overload

from recon_pipeline.core.backfill.instants import UnreadableValueError

Row = Mapping[str, Any]
Reasons = defaultdict[int, list[str]]
"""Why rows of a piece are rejected, by their position in it."""

T = TypeVar("T")

_EQUAL_IS_THE_SAME = ({str}, {int})
"""In a column of one of these types, equal values are read alike; `1 == True == 1.0` are not."""


class Unreadable(NamedTuple):
    """A piece of a source that is not a row: its text unchanged, and why."""

    text: str
    reason: str


class Unreached(NamedTuple):
    """In place of a value that a path does not reach, because something on it cannot be taken apart: the reason."""

    reason: str


class Columns(Sequence[Row]):
    """Rows that were read by column; each row is built only when it is needed.

    Args:
        values: Of each column, all of the same length; at least one column.
    """

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "Columns": ...
    def __getitem__(self, index: int | slice) -> "Row | Columns":
        found = {name: values[index] for name, values in self.values.items()}
        return Columns(found) if isinstance(index, slice) else found


class Coded(list[Any]):
    """A column's values as columnar files store them: the distinct ones, and which of them each row has.

    Args:
        distinct: Those that occur, equal ones perhaps several times.
        places: Of each row's value among them.
    """

    def __init__(self, distinct: Sequence[Any], places: Sequence[int]) -> None:
        super().__init__(map(distinct.__getitem__, places))
        self.distinct = distinct
        self.places = places


def values_of(rows: Sequence[Row], name: str) -> Sequence[Any]:
    """A column's values, None where a row has none."""
    if isinstance(rows, Columns):
        return rows.values[name] if name in rows.values else [None] * len(rows)
    return [row.get(name) for row in rows]


def shared_names(rows: Sequence[Row]) -> Sequence[str] | None:
    """The names of the columns if all rows name the same ones in the same order, else None."""
    if isinstance(rows, Columns):
        return tuple(rows.values)
    names = set(map(tuple, rows))
    return names.pop() if len(names) == 1 else None


def read_each(read: Callable[[Any], T], values: Sequence[Any], name: str, reasons: Reasons) -> list[T | None]:
    """Read each value; None, and a reason that begins with the name, where that fails.

    Args:
        read: Raises `UnreadableValueError`; its result depends only on the value.
        values: Of a column.
        name: How a reason begins.
        reasons: Reasons are added to it.
    """
    types = set(map(type, values.distinct if isinstance(values, Coded) else values))
    try:
        if isinstance(values, Coded) and Unreached not in types:
            return Coded([read(value) for value in values.distinct], values.places)
        if _equal_is_the_same(types, values):
            known = {value: read(value) for value in set(values)}
            return [known[value] for value in values]
        if Unreached not in types:
            return [read(value) for value in values]
    except UnreadableValueError:
        pass
    return [_read_one(read, value, name, reasons, index) for index, value in enumerate(values)]


def _equal_is_the_same(types: set[type], values: Sequence[Any]) -> bool:
    kinds = types - {type(None)}
    if kinds == {datetime}:
        # The two instants that a clock shows alike in autumn are equal for Python, where they have one zone.
        return not any(value is not None and value.fold for value in values)
    return kinds in _EQUAL_IS_THE_SAME


def reached(value: T) -> T:
    """The value.

    Raises:
        UnreadableValueError: A path does not reach it.
    """
    if isinstance(value, Unreached):
        raise UnreadableValueError(f"cannot be looked up: {value.reason}")
    return value


def _read_one(read: Callable[[Any], T], value: Any, name: str, reasons: Reasons, index: int) -> T | None:
    try:
        return read(reached(value))
    except UnreadableValueError as error:
        reasons[index].append(f"{name} {error}")
        return None
