"""Skips rows that are in an export for completeness, by the mapping's `skip_when`.

Invariant: only rows with exactly these values are skipped, and they are counted; numbers are equal however they are
written.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from recon_pipeline.core.backfill.cells import Cells
from recon_pipeline.core.backfill.columns import Columns, Row, Unreadable

_NUMBER = re.compile(r"[+-]?[0-9]{1,100}(\.[0-9]{1,100})?")


def kept(
    lines: Sequence[int], rows: Sequence[Row | Unreadable], skip_when: Mapping[str, tuple[Any, ...]], cells: Cells
) -> tuple[Sequence[int], Sequence[Row | Unreadable]]:
    """The rows that are not skipped: those in which some column has none of its values.

    Args:
        lines: Of each row.
        rows: Of a piece of a source.
        skip_when: Of the mapping.
        cells: Of the mapping.
    """
    if not skip_when:
        return lines, rows
    unreadable = None if isinstance(rows, Columns) else rows
    readable: Sequence[Row] = (
        rows if isinstance(rows, Columns) else [{} if isinstance(row, Unreadable) else row for row in rows]
    )
    is_left_out = [True] * len(rows)
    for column, values in skip_when.items():
        wanted = set(map(_compared, values))
        found = map(_compared, cells.of(readable, column))
        is_left_out = [before and value in wanted for before, value in zip(is_left_out, found, strict=True)]
    stay = [
        index
        for index, left_out in enumerate(is_left_out)
        if not left_out or (unreadable is not None and isinstance(unreadable[index], Unreadable))
    ]
    if len(stay) == len(rows):
        return lines, rows
    kept_lines = [lines[index] for index in stay]
    if isinstance(rows, Columns):
        return kept_lines, Columns({name: [values[index] for index in stay] for name, values in rows.values.items()})
    return kept_lines, [rows[index] for index in stay]


def _compared(value: Any) -> Hashable:
    """A value that is equal for values that mean the same."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return ("is", value)
    if isinstance(value, (int, float, Decimal)):
        return Decimal(str(value))
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return ("is", text.lower() == "true")
        return Decimal(text) if _NUMBER.fullmatch(text) else text
    return str(value)
