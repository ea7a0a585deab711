"""The `metadata` of a late event: its origin, and the other columns of its row.

Invariant: no value of the row is changed; a value that Postgres or JSON cannot store is rejected with the reason.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from recon_pipeline.core.backfill.cells import Cells
from recon_pipeline.core.backfill.columns import Reasons, Row, Unreached, read_each, shared_names, values_of
from recon_pipeline.core.backfill.exact_json import Doubled, decode, encode
from recon_pipeline.core.backfill.identifiers import require_storable
from recon_pipeline.core.backfill.instants import UnreadableValueError, shown
from recon_pipeline.core.backfill.mapping import OWN_PREFIX, MappingSpec

ORIGIN_KEY = "recon_backfill"
"""The entry of an event's `metadata` that names batch, source and line."""
COLUMNS_KEY = "recon_columns"
"""The entry for columns whose names are also entries of the object that the mapping's `metadata` names."""


class MetadataWriter:
    """Writes the metadata of the rows of one source, as JSON.

    Args:
        spec: The mapping: the columns that it names are not repeated here.
        source: The source's name.
        batch_id: The batch.
    """

    def __init__(self, spec: MappingSpec, *, source: str, batch_id: str) -> None:
        self._taken = spec.columns
        self._own = spec.metadata
        self._cells = Cells(spec.nulls)
        origin = json.dumps({"batch_id": batch_id, "source": source})
        self._origin = f'{{"{ORIGIN_KEY}": {origin[:-1]}, "line": '

    def write(self, lines: Sequence[int], rows: Sequence[Row], reasons: Reasons) -> list[str]:
        """The metadata of each row, and a reason for each value in it that cannot be stored."""
        names = shared_names(rows) if self._own is None else None
        if names is None:
            given = [None] * len(rows) if self._own is None else self._cells.of(rows, self._own)
            return [
                self._of_row(line, row, own, reasons, index)
                for index, (line, row, own) in enumerate(zip(lines, rows, given, strict=True))
            ]
        heads = [f"{self._origin}{line}}}" for line in lines]
        left = [self._column(name, rows, reasons) for name in names if self._is_left(name)]
        if not left:
            return [f"{head}}}" for head in heads]
        rests = map(", ".join, zip(*left, strict=True))
        return [f"{head}, {rest}}}" for head, rest in zip(heads, rests, strict=True)]

    def _is_left(self, name: str) -> bool:
        return name not in self._taken and not name.startswith(OWN_PREFIX)

    def _column(self, name: str, rows: Sequence[Row], reasons: Reasons) -> list[str]:
        """A column's entries; a row that has a reason is rejected, so its entry is not used."""
        entries = read_each(lambda value: _entry(name, value), values_of(rows, name), "metadata", reasons)
        return [entry or "" for entry in entries]

    def _of_row(self, line: int, row: Row, given: Any, reasons: Reasons, index: int) -> str:
        left = {name: value for name, value in row.items() if self._is_left(name)}
        own = self._own_metadata(given, reasons, index)
        columns = {name: left.pop(name) for name in own if name in left}
        left = {name: value for name, value in own.items() if name != ORIGIN_KEY} | left
        if columns:
            left[COLUMNS_KEY] = columns
        entries = [f"{self._origin}{line}}}"]
        for name, value in left.items():
            try:
                entries.append(_entry(name, value))
            except UnreadableValueError as error:
                reasons[index].append(f"metadata {error}")
        return f"{', '.join(entries)}}}"

    def _own_metadata(self, given: Any, reasons: Reasons, index: int) -> dict[str, Any]:
        if isinstance(given, str) and given:
            with suppress(ValueError):  # text that is not JSON is reported below
                given = decode(given)
        if isinstance(given, Unreached):
            reasons[index].append(f"metadata (column {self._own}) cannot be looked up: {given.reason}")
            return {}
        if given in (None, ""):
            return {}
        if isinstance(given, Doubled):
            reasons[index].append(
                f"metadata (column {self._own}) has a name twice, and jsonb keeps one: {shown(given)}"
            )
            return {}
        if not isinstance(given, dict):
            reasons[index].append(f"metadata (column {self._own}) is not a JSON object: {shown(given)}")
            return {}
        return given  # pyright: ignore[reportUnknownVariableType]


def _entry(name: str, value: Any) -> str:
    return f"{_json(name)}: {_json(value)}"


def _json(value: Any) -> str:
    text = encode(value)
    if "\\u0000" in text or "\\ud" in text:
        require_storable(value)
    return text
