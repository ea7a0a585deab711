"""Rows of CSV, NDJSON and Parquet files, in pieces of bounded size, each row with its line number.

Invariant: every part of a file becomes a row or an `Unreadable` with its text; only empty lines are skipped.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice, repeat
from typing import Any

from recon_pipeline.core.backfill.columns import Columns, Row, Unreadable
from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.backfill.rows import SourceRows
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.sources.files import SourceFile, find_files, opened, total_size

CHUNK_ROWS = 10_000
"""Inserting them takes some 300 ms: the application waits at most that long for a request id that is inserted here."""

_BUFFER_BYTES = 2**18
_NDJSON_ENDINGS = (".ndjson", ".jsonl", ".json")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERED = Iterator[tuple[int, Row | Unreadable]]
_Piece = tuple[tuple[str, ...], Sequence[int], Sequence[Row | Unreadable], int]
"""Columns, lines, rows, and how far into the file they reach, in bytes."""


def read_files(sources: Iterable[str], *, encoding: str, delimiter: str | None) -> Iterator[SourceRows]:
    """All rows of the files of the sources.

    Args:
        sources: Paths, globs, folders, URLs.
        encoding: Of text files.
        delimiter: Of CSV files, or None for the usual one.

    Raises:
        ReconError: A file cannot be read; earlier rows have been yielded.
    """
    files = [file for source in sources for file in find_files(source)]
    total, before = total_size(files), 0
    for file in files:
        for columns, lines, rows, position in _pieces(file, encoding, delimiter):
            done = None if not total else min((before + position) / total, 1.0)
            yield SourceRows(file.name, columns, lines, rows, done)
        before += file.size or 0


def _pieces(file: SourceFile, encoding: str, delimiter: str | None) -> Iterator[_Piece]:
    with opened(file) as (stream, raw, kind):
        if kind == "parquet":
            yield from _parquet(file, stream)
            return
        columns, numbered = _text_rows(file, stream, encoding, delimiter)
        while piece := list(islice(numbered, CHUNK_ROWS)):
            lines, rows = zip(*piece, strict=True)
            # The stream closes itself at its end.
            yield columns, lines, rows, file.size or 0 if stream.closed else raw.tell()


def _text_rows(
    file: SourceFile, stream: Any, encoding: str, delimiter: str | None
) -> tuple[tuple[str, ...], _NUMBERED]:
    buffered = io.BufferedReader(stream, _BUFFER_BYTES)
    if (
        buffered.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        and codecs.lookup(encoding).name == "utf-8"
    ):
        raise ConfigurationError(
            f"{file.name} is UTF-16, not UTF-8.",
            changed=NOTHING_INSERTED,
            fix="Set encoding: utf-16 in the mapping.",
        )
    known = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    text = io.TextIOWrapper(buffered, encoding=known, errors="surrogateescape", newline="")
    number, first = next(((number, line) for number, line in enumerate(text, 1) if line.strip()), (0, ""))
    if not number:
        raise ReconError(f"{file.name} is empty.", changed=NOTHING_INSERTED, fix="Export it again, or leave it out.")
    name = file.name.lower().removesuffix(".gz").removesuffix(".zst")
    if first.startswith("PAR1"):
        raise ConfigurationError(
            f"{file.name} is a compressed Parquet file.",
            changed=NOTHING_INSERTED,
            fix="Decompress it first; Parquet files are compressed inside.",
        )
    if name.endswith(_NDJSON_ENDINGS) or first.lstrip().startswith("{"):
        return _ndjson(file, first, text, number)
    return _csv(file, first, text, number, delimiter or ("\t" if name.endswith(".tsv") else ","))


def _csv(
    file: SourceFile, first: str, text: Iterable[str], number: int, delimiter: str
) -> tuple[tuple[str, ...], _NUMBERED]:
    consumed: list[str] = []

    def lines() -> Iterator[str]:
        yield first
        for line in text:
            consumed.append(line)
            yield line

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        columns = tuple(next(reader))
    except csv.Error as error:
        raise _unusable_header(file, f"its first line is not CSV: {error}") from error
    doubled = sorted({column for column in columns if columns.count(column) > 1})
    if doubled:
        raise _unusable_header(file, f"its first line names {', '.join(map(repr, doubled))} twice")
    if not all(column.strip() for column in columns):
        raise _unusable_header(file, "its first line has a column without a name")
    return columns, _csv_rows(reader, columns, consumed, number - 1)


def _csv_rows(reader: Any, columns: tuple[str, ...], consumed: list[str], skipped: int) -> _NUMBERED:
    while True:
        consumed.clear()
        line = skipped + reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, Unreadable("".join(consumed), f"this is not CSV: {error}")
            continue
        if len(values) == len(columns):
            yield line, dict(zip(columns, values, strict=True))
        elif values:
            reason = f"it has {len(values)} values and the first line names {len(columns)} columns"
            yield line, Unreadable("".join(consumed), reason)


def _ndjson(file: SourceFile, first: str, text: Iterable[str], number: int) -> tuple[tuple[str, ...], _NUMBERED]:
    if first.lstrip().startswith("["):
        raise ConfigurationError(
            f"{file.name} is one JSON array, not one object per line.",
            changed=NOTHING_INSERTED,
            fix=f"Turn it into lines: jq -c '.[]' {file.name} > rows.ndjson",
        )

    def numbered() -> _NUMBERED:
        yield number, _json_row(first)
        for line, one in enumerate(text, number + 1):
            if one.strip():
                yield line, _json_row(one)

    return (), numbered()


def _json_row(line: str) -> Row | Unreadable:
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        return Unreadable(line, f"this is not JSON: {error}")
    return row if isinstance(row, dict) else Unreadable(line, "this is not a JSON object")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _parquet(file: SourceFile, stream: Any) -> Iterator[_Piece]:
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(stream)
    columns = tuple(parquet.schema_arrow.names)
    if len(set(columns)) != len(columns):
        raise _unusable_header(file, "two of its columns have the same name")
    total, number = parquet.metadata.num_rows, 0
    # Group by group: an iterator over several keeps all that it has read until its end, which is the whole file.
    groups = map(parquet.iter_batches, repeat(CHUNK_ROWS), [[group] for group in range(parquet.num_row_groups)])
    for batch in chain.from_iterable(groups):
        rows = Columns(dict(zip(columns, map(_python_values, batch.columns), strict=True)))
        lines = range(number + 1, number + batch.num_rows + 1)
        number += batch.num_rows
        yield columns, lines, rows, int((file.size or 0) * number / total)


def _python_values(column: Any) -> list[Any]:
    """The values; timestamps are converted here, because Arrow needs microseconds for each. Nanoseconds are cut off.

    Each instant is created once, because the bounds of periods repeat.
    """
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return column.to_pylist()
    epoch = _EPOCH if column.type.tz is not None else _EPOCH.replace(tzinfo=None)
    micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).dictionary_encode()
    instants = [_after(epoch, one) for one in micros.dictionary.to_pylist()]
    return [None if index is None else instants[index] for index in micros.indices.to_pylist()]


def _after(epoch: datetime, microseconds: int) -> Any:
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"{microseconds} microseconds since 1970"


def _unusable_header(file: SourceFile, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file.name} cannot be used: {reason}.",
        changed=NOTHING_INSERTED,
        fix="Export it again with one name for each column in its first line (or set delimiter: in the mapping).",
    )
