"""Rows of a piece of a source, looked at column by column: what is the same in many rows is read once.

There are millions of rows, and most of what they say is said again and again: whose usage it is, of what type, in which
period.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, overload

from recon_pipeline.core.backfill.instants import UnreadableValueError

Row = Mapping[str, Any]
Reasons = defaultdict[int, list[str]]
"""Why rows of a piece are refused, by their place in it."""

T = TypeVar("T")

_EQUAL_IS_THE_SAME = ({str}, {int}, {datetime})
"""Of each of these types alone: `1 == True == 1.0`, which are read differently. Instants of a column have one zone."""


class Unreadable(NamedTuple):
    """A piece of a source that is no row: its text as it stands, and why."""

    text: str
    reason: str


class Columns(Sequence[Row]):
    """Rows that came by column, each put together only when somebody asks for it.

    Args:
        values: Of each column, all of one length; at least one.
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
    """What each value is read as; None, and a reason that begins with the name, where it cannot be.

    Args:
        read: Raises `UnreadableValueError`; its answer depends on the value alone.
        values: Of a column.
        name: How a reason begins.
        reasons: Added to.
    """
    try:
        if set(map(type, values)) in _EQUAL_IS_THE_SAME:
            known = {value: read(value) for value in set(values)}
            return [known[value] for value in values]
        return [read(value) for value in values]
    except UnreadableValueError:
        return [_read_one(read, value, name, reasons, index) for index, value in enumerate(values)]


def _read_one(read: Callable[[Any], T], value: Any, name: str, reasons: Reasons, index: int) -> T | None:
    try:
        return read(value)
    except UnreadableValueError as error:
        reasons[index].append(f"{name} {error}")
        return None
