"""Rows of CSV and TSV: the mapping, or the ending of the name, says what a quotation mark means.

Invariant: every part of a file becomes a row or an `Unreadable` with its text; only empty lines are skipped.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.sources.failures import WHAT_IS_DONE
from recon_pipeline.sources.finding import SourceFile

MOST_CHARACTERS = 2**25
"""Of one row: what is longer is not one, but has lost its end."""

Numbered = Iterator[tuple[int, Row | Unreadable]]
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0", "a": "\a"}
_NEEDED = set("\\'\"/\t\n\r ,;|")
"""Characters that stand for themselves behind a backslash."""


class Dialect(NamedTuple):
    """How cells are written.

    Attributes:
        delimiter: Between cells.
        quoted: Cells may stand in quotation marks; else backslashes escape, as ClickHouse, MySQL and psql write it.
        is_said: The mapping says so; else the name's ending does.
    """

    delimiter: str
    quoted: bool
    is_said: bool


class _Lines(Iterator[str]):
    """Lines that were read for one row, with what shows whether the last one is whole."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.of_row: list[str] = []
        self.characters = 0
        self.number = 0

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.of_row.append(line)
        self.characters += len(line)
        if self.characters > MOST_CHARACTERS:
            raise OverflowError
        return line

    def begin(self) -> None:
        self.of_row.clear()
        self.characters = 0


def delimited_rows(
    file: SourceFile, lines: Iterable[str], dialect: Dialect, skipped: int
) -> tuple[tuple[str, ...], Numbered]:
    """The columns that the first line names, and the rows of the others.

    Args:
        file: To name it in errors.
        lines: The first one names the columns.
        dialect: How cells are written.
        skipped: How many empty lines came before.
    """
    # A global limit: nothing else in this process reads CSV with one, and a longer cell would be torn apart.
    csv.field_size_limit(MOST_CHARACTERS)
    counted = _Lines(lines)
    rows = csv.reader(counted, delimiter=dialect.delimiter, strict=True) if dialect.quoted else _bare(counted, dialect)
    try:
        # pandas writes its index under no name, and many programs a delimiter at the end of each line.
        columns = tuple(name if name.strip() else f"column {at}" for at, name in enumerate(next(rows), 1))
    except (csv.Error, OverflowError) as error:
        raise unusable_header(file, f"its first line is not CSV: {error}") from error
    require_names(file, columns)
    if len(columns) == 1 and (other := next((one for one in ";\t|," if one in columns[0]), None)):
        raise unusable_header(file, f"its first line is one column, {columns[0][:80]!r}: is {other!r} the delimiter?")
    return columns, _rows(file, rows, columns, counted, dialect, skipped)


def require_names(file: SourceFile, columns: tuple[str, ...]) -> None:
    """Refuse columns of the same name, and names that are no text."""
    doubled = sorted(name for name, count in Counter(columns).items() if count > 1)
    if doubled:
        raise unusable_header(file, f"it names {', '.join(map(repr, doubled[:10]))} twice in its first line")
    if any("\0" in column for column in columns):
        raise unusable_header(file, "its first line holds zero bytes, so it is no text in this encoding")
    if any("\ud800" <= one <= "\udfff" for column in columns for one in column):
        raise ConfigurationError(
            f"{file.name} is in another encoding than the mapping says (UTF-8 if it says none), as its first line "
            f"shows: {', '.join(columns)[:80]}.",
            changed=NOTHING_INSERTED,
            fix="Set encoding: in the mapping, such as cp1252 or latin-1, or export the file as UTF-8.",
        )


def unusable_header(file: SourceFile, reason: str) -> ConfigurationError:
    """The error about a file whose columns cannot be recognised."""
    return ConfigurationError(
        f"{file.name} cannot be used: {reason}.",
        changed=NOTHING_INSERTED,
        fix="Export it again with one name for each column in its first line (or set delimiter: in the mapping).",
    )


def _rows(
    file: SourceFile, rows: Iterator[Any], columns: tuple[str, ...], lines: _Lines, dialect: Dialect, skipped: int
) -> Numbered:
    width, all_end = len(columns), lines.of_row[-1].endswith(("\n", "\r"))
    while True:
        lines.begin()
        line = skipped + lines.number + 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except (csv.Error, ValueError) as error:
            yield line, Unreadable("".join(lines.of_row), f"this is not CSV: {error}")
            continue
        except OverflowError as error:
            raise ReconError(
                f"{file.name}: the row that begins in line {line:,} has no end within {MOST_CHARACTERS:,} characters.",
                changed=WHAT_IS_DONE,
                fix="Look for a quotation mark that is not closed there; quote: none in the mapping takes it as it is.",
            ) from error
        if all_end and values and not lines.of_row[-1].endswith(("\n", "\r")):
            yield line, _perhaps_cut(lines, dialect, columns, values)
        elif len(values) == width:
            doubtful = None if dialect.is_said else _doubtful(values, lines.of_row, dialect)
            yield (
                line,
                Unreadable("".join(lines.of_row), doubtful) if doubtful else dict(zip(columns, values, strict=True)),
            )
        elif values:
            reason = f"it has {len(values)} values and the first line names {width} columns"
            yield line, Unreadable("".join(lines.of_row), reason)


def _perhaps_cut(lines: _Lines, dialect: Dialect, columns: tuple[str, ...], values: list[str]) -> Row | Unreadable:
    text = "".join(lines.of_row)
    if dialect.quoted and len(values) == len(columns) and text.endswith('"'):
        return dict(zip(columns, values, strict=True))
    return Unreadable(
        text, "it is the last line and lacks the line end that all others have: it may be cut; if it is whole, end it"
    )


def _doubtful(values: list[str], lines: list[str], dialect: Dialect) -> str | None:
    """Why a row is ambiguous whose quotation marks mean what the ending of the file's name says."""
    if not dialect.quoted:
        return _quoted(values)
    # As one mark at the beginning of a cell, and another at the end of a cell some rows later, make them.
    if len(lines) > 1 and len(values) > 1 and all(one.count(dialect.delimiter) >= len(values) - 1 for one in lines):
        return (
            f"each of its {len(lines):,} lines has cells enough for a row of its own: say in the mapping whether "
            "quotation marks belong to a value (quote: none) or hold lines together (quote: double)"
        )
    return None


def _quoted(values: list[str]) -> str | None:
    """Why a row of a file that is bare by its name is ambiguous, if a cell is in quotation marks."""
    for value in values:
        if len(value) > 1 and value[0] == value[-1] == '"':
            return (
                f"{value[:80]} is in quotation marks: say in the mapping whether they belong to it (quote: none) "
                "or not (quote: double)"
            )
    return None


def _bare(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    for first in lines:
        line, end = _parted(first)
        while "\\" in line and end and (len(line) - len(line.rstrip("\\"))) % 2:
            more, following = _parted(next(lines, ""))
            line, end = line + end + more, following
        if "\\" not in line:
            yield line.split(dialect.delimiter) if line else []
        else:
            yield [_unescaped(cell) for cell in _split_escaped(line, dialect.delimiter)]


def _parted(line: str) -> tuple[str, str]:
    text = line.rstrip("\r\n")
    return text, line[len(text) :]


def _split_escaped(line: str, delimiter: str) -> list[str]:
    cells, begun = [], ""
    for part in line.split(delimiter):
        begun += part
        if (len(part) - len(part.rstrip("\\"))) % 2:
            begun += delimiter
            continue
        cells.append(begun)
        begun = ""
    return [*cells, begun] if begun else cells


def _unescaped(cell: str) -> str:
    if "\\" not in cell or cell == "\\N":
        return cell

    def one(found: re.Match[str]) -> str:
        letter = found[1]
        return _ESCAPED.get(letter, letter if letter in _NEEDED else found[0])

    return _ESCAPE.sub(one, cell)
