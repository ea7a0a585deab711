"""Files opened as one stream of unpacked bytes; the first bytes of a file decide its format.

Invariant: a file that changes, or that ends before its size, while it is read is an error, not a shorter file.
"""

import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import pyarrow as pa

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.sources.failures import WHAT_IS_DONE, reading
from recon_pipeline.sources.finding import SourceFile
from recon_pipeline.sources.kinds import HEAD_BYTES, Kind, archived_kind, kind_of
from recon_pipeline.sources.names import STDIN

BUFFER_BYTES = 2**18


class Opened(NamedTuple):
    """A file that is open.

    Attributes:
        stream: Its unpacked bytes.
        position: How many bytes of the file itself were read.
        reader: What reads it: `text`, `parquet`, `orc` or `arrow`.
        name: Its name, or in an archive that of the file in it, of which the ending may say something.
    """

    stream: io.BufferedReader
    position: "Position"
    reader: str
    name: str


class Position:
    """How far a file was read, for progress and for errors."""

    def __init__(self) -> None:
        self.bytes_read = 0
        self.characters = 0
        self.line = 0

    def __str__(self) -> str:
        return f" after line {self.line:,}" if self.line else ""


class _Counted(io.RawIOBase):
    """A stream that says how far it was read; closing it leaves the stream open.

    It waits until it has the requested bytes, or the end, so that a format does not depend on how a pipe delivers them.
    """

    def __init__(self, below: Any, position: Position) -> None:
        self._below = below
        self._position = position

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled = 0
        while filled < len(buffer) and (found := self._below.read(len(buffer) - filled)):
            buffer[filled : filled + len(found)] = found
            filled += len(found)
            self._position.bytes_read += len(found)
        return filled


@contextmanager
def opened(file: SourceFile) -> Generator[Opened]:
    """The file's bytes, unpacked.

    Raises:
        ReconError: It cannot be opened or read, is truncated, changed while it was read, or is of a kind that cannot
            be read.
    """
    position = Position()
    with reading(file.name, lambda: str(position)), ExitStack() as stack:
        before = file.version()
        raw = stack.enter_context(_raw(file))
        counted = _buffered(_Counted(raw, position))
        outer = kind_of(_head(counted, file))
        stream, kind, name = _unpacked(file, outer, counted, raw, stack)
        if kind.reader != "text":
            stream = _seekable(raw, counted, stack)
        yield Opened(stream, position, kind.reader, name)
        in_order = kind.reader == "text" and outer.packing != "zip"
        _require_whole(file, before, position, in_order=in_order)


def _unpacked(
    file: SourceFile, kind: Kind, counted: io.BufferedReader, raw: Any, stack: ExitStack
) -> tuple[io.BufferedReader, Kind, str]:
    name = file.name
    if not kind.packing:
        return counted, _require_readable(file, kind), name
    if kind.packing == "zip":
        stream, name = _member(file, _seekable(raw, counted, stack), stack)
    elif kind.packing == "xz":
        import lzma  # noqa: PLC0415 - a Python that was built without it reads all other files

        stream = _buffered(_Counted(_Xz(counted, lzma.LZMADecompressor), Position()))
    else:
        packed = pa.CompressedInputStream(pa.PythonFile(counted, "r"), kind.packing)
        stream = _buffered(_Counted(packed, Position()))
    inner = kind_of(_head(stream, file))
    if inner.reader != "text":
        raise ConfigurationError(
            f"{file.name} is {inner.name} inside {kind.name}.", changed=NOTHING_INSERTED, fix="Unpack it first."
        )
    return stream, inner, name


def _buffered(stream: Any) -> io.BufferedReader:
    return cast("io.BufferedReader", io.BufferedReader(stream, BUFFER_BYTES))


class _Xz(io.RawIOBase):
    """Unpacks all streams of an xz file; Python's own reader takes what follows the first one for padding."""

    def __init__(self, below: io.BufferedReader, make: Any) -> None:
        self._below = below
        self._make = make
        self._unpacker = make()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._unpacker.eof:
                rest = self._unpacker.unused_data + self._below.read(BUFFER_BYTES)
                rest = rest.lstrip(b"\0")
                if not rest:
                    return 0
                self._unpacker = self._make()
                found = self._unpacker.decompress(rest, len(buffer))
            elif self._unpacker.needs_input:
                packed = self._below.read(BUFFER_BYTES)
                if not packed:
                    raise EOFError("the compressed stream is cut")
                found = self._unpacker.decompress(packed, len(buffer))
            else:
                found = self._unpacker.decompress(b"", len(buffer))
            if found:
                buffer[: len(found)] = found
                return len(found)


def _member(file: SourceFile, archive: Any, stack: ExitStack) -> tuple[io.BufferedReader, str]:
    found = stack.enter_context(zipfile.ZipFile(archive))
    names = [one.filename for one in found.infolist() if not one.is_dir()]
    kind = archived_kind(names)
    if kind is not None:
        _require_readable(file, kind)
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise ConfigurationError(
            f"{file.name} is a zip archive of {len(names)} files; one alone can be read.",
            changed=NOTHING_INSERTED,
            fix="Unpack it, and give the folder.",
        )
    if found.getinfo(names[0]).flag_bits & 1:
        raise ConfigurationError(
            f"{file.name} is a zip archive with a password.", changed=NOTHING_INSERTED, fix="Unpack it first."
        )
    member = stack.enter_context(found.open(names[0]))
    return _buffered(_Counted(member, Position())), names[0]


def _require_readable(file: SourceFile, kind: Kind) -> Kind:
    if kind.fix:
        raise ConfigurationError(f"{file.name} is {kind.name}.", changed=NOTHING_INSERTED, fix=kind.fix)
    return kind


def _head(stream: io.BufferedReader, file: SourceFile) -> bytes:
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    if not head:
        raise ReconError(
            f"{file.name} is empty.",
            changed=NOTHING_INSERTED,
            fix="Export it again, or leave it out (skip: in the mapping leaves files of a folder out).",
        )
    return head


@contextmanager
def _raw(file: SourceFile) -> Iterator[Any]:
    if file.path == STDIN:
        yield sys.stdin.buffer
    elif file.is_local:
        with open(file.path, "rb", buffering=0) as raw:
            yield raw
    elif file.is_web:
        # One answer, as long as its rows take: ranges may be of several versions of the file.
        with file.filesystem.open(file.path, "rb", block_size=0) as raw:
            yield raw
    else:
        with file.filesystem.open(file.path, "rb") as raw:
            yield raw


def _seekable(raw: Any, counted: io.BufferedReader, stack: ExitStack) -> Any:
    """The same file from its beginning, in a file of ours if it comes through a pipe or an HTTP stream."""
    if raw.seekable():
        try:
            raw.seek(0)
        except (OSError, ValueError):  # an HTTP stream says that it can
            pass
        else:
            return raw
    spooled = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    shutil.copyfileobj(counted, spooled, BUFFER_BYTES)
    spooled.seek(0)
    return spooled


def _require_whole(file: SourceFile, before: tuple[Any, ...] | None, position: Position, *, in_order: bool) -> None:
    again = "Wait until nobody writes it, or copy it; then run this again."
    if before is None:
        return
    if before != file.version():
        raise ReconError(f"{file.name} changed while it was read{position}.", changed=WHAT_IS_DONE, fix=again)
    size = before[0]
    if in_order and size is not None and position.bytes_read < size:
        raise ReconError(
            f"{file.name} ended{position}, after {position.bytes_read:,} of {size:,} bytes.",
            changed=WHAT_IS_DONE,
            fix=again,
        )
