"""Reads the pieces of sources, one source after the other, with one mapping."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from recon_pipeline.core.backfill.cells import Cells
from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.default_mapping import (
    default_mapping,
    may_come_later,
    missing_columns,
    no_such_columns,
    rows_to_ask_about,
    rows_without,
)
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.rows import Reading, RowReader, SourceRows
from recon_pipeline.core.backfill.skipping import kept
from recon_pipeline.core.errors import noting
from recon_pipeline.core.scope import MeteredUsage

_FAULTS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What a value that nobody thought of raises in the code that reads it."""


@dataclass(frozen=True)
class Readings:
    """The rows of a piece, read.

    Attributes:
        source: Its name for a person.
        rows: As they were read, in the order of the source.
        readings: Of each row.
        done: Share of the whole that is read, 0 to 1, or None if unknown.
        mapping: What they were read with.
        skipped: How many rows of the piece the mapping leaves out; they are not among the rows.
    """

    source: str
    rows: Sequence[Row | Unreadable]
    readings: Sequence[Reading]
    done: float | None
    mapping: MappingSpec
    skipped: int = 0

    @property
    def place(self) -> str:
        """Which rows they are, for a person."""
        return _place(self.source, [reading.line for reading in self.readings])


def read_rows(
    pieces: Iterable[SourceRows],
    spec: MappingSpec | None,
    *,
    batch_id: str,
    quantity_range: QuantityRange,
    scope: tuple[MeteredUsage, ...],
) -> Iterator[Readings]:
    """Read rows with the mapping, or without one by the names of their columns.

    Raises:
        ConfigurationError: A source lacks columns; raised before any of its rows is yielded, or at its end if each row
            names its own columns and there are many.
    """
    coming = iter(pieces)
    source: _Source | None = None
    while (piece := next(coming, None)) is not None:
        if not piece.rows and not piece.columns:
            continue  # each row names its own columns, and there is none yet
        if source is None or piece.source != source.name:
            if source is not None:
                source.require_nothing_missing()
            source = _Source(piece, spec, batch_id=batch_id, quantity_range=quantity_range, scope=scope)
            if source.missing:
                following = next(coming, None)
                coming = coming if following is None else chain((following,), coming)
                source.require_no_mistake(has_more=following is not None and following.source == piece.source)
        if piece.rows:
            yield source.read(piece)
    if source is not None:
        source.require_nothing_missing()


class _Source:
    """One source, of which the first piece is known.

    Attributes:
        name: Of the source, for a person.
        missing: Columns that the mapping names and that no row had so far.
    """

    def __init__(
        self,
        first: SourceRows,
        spec: MappingSpec | None,
        *,
        batch_id: str,
        quantity_range: QuantityRange,
        scope: tuple[MeteredUsage, ...],
    ) -> None:
        self.name = first.source
        self._names_vary = not first.columns
        self._columns = first.columns or _names_in(first)
        self._mapping = spec or default_mapping(self._columns, source=self.name, names_vary=self._names_vary)
        self._is_default = spec is None
        self.missing = frozenset[str]() if spec is None else missing_columns(spec, self._columns)
        self._known_names: set[str] = set()
        self._cells = Cells(self._mapping.nulls)
        self._reader = RowReader(
            self._mapping, source=self.name, batch_id=batch_id, quantity_range=quantity_range, scope=scope
        )

    def require_no_mistake(self, *, has_more: bool) -> None:
        """Refuse missing columns that later rows cannot have, or that are probably a mistake for others."""
        may_follow = self._names_vary and (has_more or not self._columns)
        if not (may_follow and may_come_later(self._mapping, self.missing, self._columns)):
            raise no_such_columns(self.missing, self._columns, source=self.name)

    def require_nothing_missing(self) -> None:
        """Refuse a source of which no row had a column that the mapping names."""
        if self.missing and self._columns:
            raise no_such_columns(self.missing, self._columns, source=self.name)

    def read(self, piece: SourceRows) -> Readings:
        """The rows of a piece, but those that the mapping leaves out."""
        lines, rows = kept(piece.lines, piece.rows, self._mapping.skip_when, self._cells)
        with noting(_place(self.name, lines)):
            readings = self._readings(lines, rows)
        if self._names_vary:
            asked = (
                rows_to_ask_about(rows, self._known_names) if self._is_default else rows_without(self._mapping, rows)
            )
            for index, reason in asked.items():
                readings[index] = readings[index]._replace(reasons=(*readings[index].reasons, reason))
        if self.missing:
            self._columns = tuple(dict.fromkeys((*self._columns, *_names_in(piece))))
            self.missing = missing_columns(self._mapping, self._columns)
        return Readings(self.name, rows, readings, piece.done, self._mapping, len(piece.lines) - len(lines))

    def _readings(self, lines: Sequence[int], rows: Sequence[Row | Unreadable]) -> list[Reading]:
        """The readings of the rows; if the reader fails on one of them, that one is rejected and no other."""
        try:
            return self._reader.read(lines, rows)
        except _FAULTS:
            return [self._reading(line, row) for line, row in zip(lines, rows, strict=True)]

    def _reading(self, line: int, row: Row | Unreadable) -> Reading:
        try:
            return self._reader.read([line], [row])[0]
        except _FAULTS as error:
            reason = f"recon cannot read it, which is a fault of recon, to be reported: {type(error).__name__}: {error}"
            return Reading(line, (reason,))


def _place(source: str, lines: Sequence[int]) -> str:
    return f"{source}, lines {lines[0]:,} to {lines[-1]:,}" if lines else source


def _names_in(piece: SourceRows) -> tuple[str, ...]:
    """All names of objects that may have different ones."""
    return tuple({name: None for row in piece.rows if not isinstance(row, Unreadable) for name in row})
