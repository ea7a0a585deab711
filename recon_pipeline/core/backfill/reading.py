"""Reads the pieces of sources, one source after the other, with one mapping."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from recon_pipeline.core.backfill.columns import Columns, Row, Unreadable
from recon_pipeline.core.backfill.mapping import MappingSpec, default_mapping, require_columns
from recon_pipeline.core.backfill.quantities import QuantityRange
from recon_pipeline.core.backfill.rows import Reading, RowReader, SourceRows
from recon_pipeline.core.scope import MeteredUsage


@dataclass(frozen=True)
class Readings:
    """The rows of a piece, read.

    Attributes:
        source: Its name for a person.
        rows: As they were read, in the order of the source.
        readings: Of each row.
        done: Share of the whole that is read, 0 to 1, or None if unknown.
        mapping: What they were read with.
    """

    source: str
    rows: Sequence[Row | Unreadable]
    readings: Sequence[Reading]
    done: float | None
    mapping: MappingSpec


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
        ConfigurationError: A source lacks columns; raised before any of its rows is yielded.
    """
    reader: RowReader | None = None
    mapping: MappingSpec | None = None
    source = None
    for piece in pieces:
        if reader is None or mapping is None or piece.source != source:
            columns = piece.columns or _names_in(piece)
            mapping = spec or default_mapping(columns)
            require_columns(mapping, columns, source=piece.source)
            reader = RowReader(
                mapping, source=piece.source, batch_id=batch_id, quantity_range=quantity_range, scope=scope
            )
            source = piece.source
        yield Readings(piece.source, piece.rows, reader.read(piece.lines, piece.rows), piece.done, mapping)


def _names_in(piece: SourceRows) -> tuple[str, ...]:
    """All names of objects that may have different ones."""
    if isinstance(piece.rows, Columns):
        return tuple(piece.rows.values)
    return tuple({name: None for row in piece.rows if not isinstance(row, Unreadable) for name in row})
