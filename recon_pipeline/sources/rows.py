"""Rows of files in pieces of bounded size, each row with its line number.

Invariant: the columns of every file are handed on before the first row of any, so that a file that does not fit
stops all before anything is inserted.
"""

import codecs
import io
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any, Literal

from recon_pipeline.core.backfill.columns import Columns, Row, Unreadable
from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.backfill.rows import SourceRows
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.sources.arrow import columnar_rows
from recon_pipeline.sources.delimited import MOST_CHARACTERS, Dialect, Numbered, delimited_rows
from recon_pipeline.sources.failures import WHAT_IS_DONE
from recon_pipeline.sources.files import BUFFER_BYTES, Opened, Position, opened
from recon_pipeline.sources.finding import SourceFile, find_files, total_size
from recon_pipeline.sources.json_rows import document_rows, is_document, line_rows
from recon_pipeline.sources.names import Unread
from recon_pipeline.sources.returned import cells_as_they_were, dialect_of, is_returned, json_as_it_was

CHUNK_ROWS = 10_000
"""Inserting them takes some 300 ms: the application waits at most that long for a request id that is inserted here."""
CHUNK_CHARACTERS = 2**23
"""Of a piece of wide rows: several are in memory at once, each several times."""

_NDJSON_ENDINGS = (".ndjson", ".jsonl", ".json")
_PACKED_ENDINGS = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",  # begins as the one of UTF-16 does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_EXCEL_DELIMITER = re.compile(r"sep=(?P<delimiter>[^\r\n])[\r\n]*", re.IGNORECASE)
"""The line that declares the delimiter of what follows, for Excel."""
_Pieces = Iterator[tuple[Sequence[int], Sequence[Row | Unreadable]]]
"""Lines and rows."""


def read_files(
    sources: Sequence[str],
    *,
    encoding: str,
    delimiter: str | None,
    quote: Literal["none", "double"] | None = None,
    skip: Sequence[str] = (),
    on_unread: Callable[[Unread], object] = lambda _: None,
) -> Iterator[SourceRows]:
    """All rows of the files of the sources.

    Args:
        sources: Paths, globs, folders, URLs; `-` for what is piped in.
        encoding: Of text files.
        delimiter: Of CSV files, or None for the usual one.
        quote: Whether cells may stand in quotation marks, or None for what the ending says.
        skip: Patterns of names of files that are left out.
        on_unread: Called with each file that is left out.

    Raises:
        ReconError: A file cannot be read; earlier rows have been yielded.
    """
    files = [file for source in sources for file in find_files(source, skip=skip, on_unread=on_unread)]
    read = partial(_file_rows, encoding=encoding, delimiter=delimiter, quote=quote)
    if len(files) > 1:
        for file in files:
            if not file.is_piped:
                with closing(read(file)) as pieces:
                    yield next(pieces)
    total, before = total_size(files), 0
    for file in files:
        for piece in read(file):
            done = None if not total or piece.done is None else min((before + piece.done) / total, 1.0)
            yield piece._replace(done=done)
        before += file.size or 0


def _file_rows(
    file: SourceFile, *, encoding: str, delimiter: str | None, quote: Literal["none", "double"] | None
) -> Generator[SourceRows]:
    """First a piece without rows, for the columns; `done` is in bytes."""
    with opened(file) as found:
        total = 0
        if found.reader == "text":
            columns, numbered = _text_rows(file, found, encoding, delimiter, quote)
            pieces = _in_pieces(numbered, found.position)
        else:
            columns, total, columnar = columnar_rows(
                file, found.stream, found.reader, piece_rows=CHUNK_ROWS, piece_bytes=CHUNK_CHARACTERS
            )
            pieces = _with_numbers(columnar)
        added = tuple((name, value) for name, value in file.partitions if name not in columns)
        columns = (*columns, *(name for name, _ in added)) if columns else ()
        yield SourceRows(file.name, columns, (), (), 0)
        for lines, rows in pieces:
            found.position.line = lines[-1]
            done = found.position.bytes_read if not total else (file.size or 0) * lines[-1] / total
            yield SourceRows(file.name, columns, lines, _with_partitions(rows, added), done)


def _with_numbers(pieces: Iterator[Columns]) -> _Pieces:
    number = 0
    for rows in pieces:
        yield range(number + 1, number + len(rows) + 1), rows
        number += len(rows)


def _in_pieces(numbered: Numbered, position: Position) -> _Pieces:
    lines: list[int] = []
    rows: list[Row | Unreadable] = []
    before = position.characters
    for line, row in numbered:
        lines.append(line)
        rows.append(row)
        # By the bytes read, not by the size of some rows: the wide ones may be among the others.
        if len(rows) >= CHUNK_ROWS or position.characters - before >= CHUNK_CHARACTERS:
            yield lines, rows
            lines, rows, before = [], [], position.characters
    if rows:
        yield lines, rows


def _with_partitions(
    rows: Sequence[Row | Unreadable], added: tuple[tuple[str, str | None], ...]
) -> Sequence[Row | Unreadable]:
    if not added:
        return rows
    if isinstance(rows, Columns):
        return Columns({**rows.values, **{name: [value] * len(rows) for name, value in added}})
    return [row if isinstance(row, Unreadable) else {**dict(added), **row} for row in rows]


def _text_rows(
    file: SourceFile, found: Opened, encoding: str, delimiter: str | None, quote: str | None
) -> tuple[tuple[str, ...], Numbered]:
    head = found.stream.peek(BUFFER_BYTES)
    marked = next((name for bom, name in _BOMS.items() if head.startswith(bom)), "utf-8-sig")
    returned = is_returned(head.decode(marked, "replace"))
    known = marked if returned else _known_encoding(file, head, encoding)
    text = io.TextIOWrapper(found.stream, encoding=known, errors="surrogateescape", newline="")
    start = codecs.getincrementaldecoder(known)(errors="replace").decode(head).lstrip()
    name = found.name.lower()
    for ending in _PACKED_ENDINGS:
        name = name.removesuffix(ending)
    is_json = name.endswith(_NDJSON_ENDINGS)
    # Only what begins like an array of objects is one: a CSV may begin with a bracket, too.
    is_array = start.startswith("[") and (is_json or start[1:].lstrip()[:1] in ("{", "]"))
    is_object = start.startswith("{")
    if (is_array or is_object) and is_document(start, is_whole=len(head) < BUFFER_BYTES):
        found_rows = document_rows(file, partial(_read, text, found.position))
        return (), json_as_it_was(found_rows) if returned else found_rows
    lines = _lines(file, text, found.position)
    skipped, first = next(((at, line) for at, line in enumerate(lines) if line.strip()), (0, ""))
    if not first:
        raise ReconError(f"{file.name} is empty.", changed=NOTHING_INSERTED, fix="Export it again, or leave it out.")
    if is_json or is_object:
        found_rows = line_rows(chain((first,), lines), skipped)
        return (), json_as_it_was(found_rows) if returned else found_rows
    if returned:
        whole = delimited_rows(file, chain((first,), lines), dialect_of(first), skipped)
        return cells_as_they_were(*whole)
    declared = _EXCEL_DELIMITER.fullmatch(first)
    if declared:
        delimiter, skipped, first = declared["delimiter"], skipped + 1, next(lines, "\n")
    is_tsv = name.endswith((".tsv", ".tab"))
    quoted = quote == "double" if quote else not is_tsv
    dialect = Dialect(delimiter or ("\t" if is_tsv else ","), quoted, quote is not None)
    return delimited_rows(file, chain((first,), lines), dialect, skipped)


def _read(text: Any, position: Position, size: int) -> str:
    found = text.read(size)
    position.characters += len(found)
    return found


def _lines(file: SourceFile, text: Any, position: Position) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, MOST_CHARACTERS), ""), 1):
        position.characters += len(line)
        if len(line) >= MOST_CHARACTERS:
            raise ReconError(
                f"{file.name}: line {number:,} is longer than {MOST_CHARACTERS:,} characters.",
                changed=WHAT_IS_DONE,
                fix="Export each row in a line of its own.",
            )
        yield line


def _known_encoding(file: SourceFile, head: bytes, encoding: str) -> str:
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
    found = next((name for bom, name in _BOMS.items() if head.startswith(bom)), None)
    if found is not None and is_utf8:
        raise _wrong_encoding(file, f"{found.upper()}, not UTF-8", found)
    if head.startswith(codecs.BOM_UTF8) and not is_utf8:
        raise _wrong_encoding(file, f"UTF-8, not {encoding}", "utf-8")
    if found is not None and codecs.lookup(encoding).name.startswith(found):
        return found  # utf-16-le would take the mark for a character of the first column's name
    return "utf-8-sig" if is_utf8 else encoding


def _wrong_encoding(file: SourceFile, said: str, right: str) -> ConfigurationError:
    return ConfigurationError(
        f"{file.name} is {said}.", changed=NOTHING_INSERTED, fix=f"Set encoding: {right} in the mapping."
    )
