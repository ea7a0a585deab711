"""Rows of JSON: one object in each line, or one after the other over several lines, or in one array.

Invariant: every value becomes a row or an `Unreadable` with its text. Where each line is a value, a broken one ends
with its line; elsewhere it ends where its brackets do.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from recon_pipeline.core.backfill.columns import Row, Unreadable
from recon_pipeline.core.backfill.exact_json import Doubled, TooDeepError, decode
from recon_pipeline.core.errors import ReconError
from recon_pipeline.sources.delimited import MOST_CHARACTERS, Numbered
from recon_pipeline.sources.failures import WHAT_IS_DONE
from recon_pipeline.sources.finding import SourceFile

_BLOCK_CHARACTERS = 2**18
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]', re.DOTALL)
_BLANK = " \t\r\n"
_BEFORE_A_ROW = ("\x1e", "\ufeff")
"""What begins a record of a JSON text sequence (`jq --seq`), and the second of two files that were put together."""


def line_rows(lines: Iterable[str], skipped: int) -> Numbered:
    """Rows of NDJSON.

    Args:
        lines: Of the file, from the first that is not empty.
        skipped: How many lines came before.
    """
    for line, one in enumerate(lines, skipped + 1):
        if one.strip():
            yield line, json_row(one)


def document_rows(file: SourceFile, read: Callable[[int], str]) -> Numbered:
    """Rows of a JSON array, or of objects over several lines.

    Args:
        file: To name it in errors.
        read: Gives the next characters, and none at the end.
    """
    for line, value in _values(file, read):
        yield line, json_row(value)


def is_document(start: str, *, is_whole: bool) -> bool:
    """Whether a text that begins with `{` or `[` is one array, or holds objects over several lines.

    Args:
        start: Its first characters.
        is_whole: They are all.
    """
    text = start.lstrip()
    if text.startswith("["):
        return True
    line, end, _ = text.partition("\n")
    if not end and not is_whole:
        return False
    # The brackets of a line of NDJSON are closed at its end; those of the first line of a longer object are not.
    # A line that is broken is no such line.
    return _depth_after(line) > 0 and line.rstrip()[-1:] in "{[,"


def json_row(line: str) -> Row | Unreadable:
    """A row from its text."""
    try:
        row = decode(line)
    except TooDeepError as error:
        return Unreadable(line, str(error))
    except ValueError as error:
        if line.startswith(_BEFORE_A_ROW):
            return json_row(line[1:])
        return Unreadable(line, f"this is not JSON: {error}")
    if isinstance(row, Doubled):
        return Unreadable(line, "a name of this JSON object occurs twice")
    return row if isinstance(row, dict) else Unreadable(line, "this is not a JSON object")


def _depth_after(text: str) -> int:
    tokens = [token[0] for token in _TOKEN.finditer(text)]
    return sum(one in "{[" for one in tokens) - sum(one in "}]" for one in tokens)


class _Splitter:
    """Takes values out of a text by their brackets, without taking them apart."""

    def __init__(self) -> None:
        self.line = 1
        self.in_array = False

    def take(self, text: str, *, is_last: bool) -> tuple[list[tuple[int, str]], str]:
        """The values that end in the text, with the line of each, and what is left of it."""
        found: list[tuple[int, str]] = []
        begin = counted = 0
        depth = 0

        def end(at: int) -> None:
            nonlocal begin, counted
            value = text[begin:at]
            blank = len(value) - len(value.lstrip(_BLANK))
            if value.strip(_BLANK):
                self.line += text.count("\n", counted, begin + blank)
                counted = begin + blank
                found.append((self.line, value.strip(_BLANK)))
            begin = at

        for token in _TOKEN.finditer(text):
            one = token[0]
            if one in "{[":
                if depth == 0 and one == "[" and not self.in_array and not text[begin : token.start()].strip(_BLANK):
                    self.in_array, begin = True, token.end()
                    continue
                if depth == 0:
                    # Text before an object that is no part of it.
                    end(token.start())
                depth += 1
            elif one in "}]" and depth:
                depth -= 1
                if depth == 0:
                    end(token.end())
            elif depth == 0 and (one == "," or (one == "]" and self.in_array)):
                end(token.start())
                self.in_array = self.in_array and one != "]"
                begin = token.end()
        if is_last:
            end(len(text))
        self.line += text.count("\n", counted, begin)
        return found, text[begin:]


def _values(file: SourceFile, read: Callable[[int], str]) -> Iterator[tuple[int, str]]:
    splitter, left, size = _Splitter(), "", _BLOCK_CHARACTERS
    while True:
        more = read(size)
        values, left = splitter.take(left + more, is_last=not more)
        yield from values
        if not more:
            # A value that is cut has just been returned as unreadable.
            if splitter.in_array and not values:
                raise ReconError(
                    f"{file.name} ended in line {splitter.line:,} within an array: it is cut.",
                    changed=WHAT_IS_DONE,
                    fix="Get the whole file and run this again.",
                )
            return
        # The rest is read again with each block, so the blocks grow with it.
        size = max(_BLOCK_CHARACTERS, len(left))
        if len(left) > MOST_CHARACTERS:
            raise ReconError(
                f"{file.name}: the value that begins in line {splitter.line:,} has no end within "
                f"{MOST_CHARACTERS:,} characters.",
                changed=WHAT_IS_DONE,
                fix="Look for a bracket or a quotation mark that is not closed there.",
            )
