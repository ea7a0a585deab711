"""Files, globs, folders and URLs, each opened as one stream of decompressed bytes.

The first bytes of a file decide its format, and its name only if they do not. fsspec opens the URLs: S3, GCS and others
need an additional package.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError, ReconError

WHAT_IS_DONE = "Rows that were read before stay inserted; nothing is inserted twice when this is run again."
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_GLOB = frozenset("*?[")
_ENDINGS = (".csv", ".tsv", ".txt", ".ndjson", ".jsonl", ".json", ".parquet", ".pq", ".gz", ".zst")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: For people and for `metadata`: without password and signature.
        size: In bytes, or None if the file system does not report it.
    """

    name: str
    size: int | None
    filesystem: Any
    path: str


def find_files(source: str) -> tuple[SourceFile, ...]:
    """The files of a path, glob, folder or URL, in the order of their names.

    Raises:
        ReconError: There is none, or it cannot be reached.
    """
    import fsspec

    shown = shown_source(source)
    if "://" in source and urlsplit(source).password is not None:
        raise ConfigurationError(
            f"The URL {shown} contains a password, which would be kept in the history of runs.",
            changed=NOTHING_INSERTED,
            fix="Remove it; pass it by environment variables, as the package that opens such URLs documents.",
        )
    with _reading(shown):
        protocol = fsspec.core.split_protocol(source)[0] or "file"
        if protocol not in fsspec.available_protocols():
            raise ConfigurationError(
                f"{shown} begins with {protocol}://, which cannot be opened.",
                changed=NOTHING_INSERTED,
                fix="Give a path, a URL that fsspec opens, table:NAME, or query:SELECT ...",
            )
        filesystem, path = fsspec.core.url_to_fs(source)
        if _GLOB & set(path):
            paths = sorted(one for one in filesystem.glob(path) if not filesystem.isdir(one))
        elif filesystem.isdir(path):
            paths = sorted(one for one in filesystem.find(path) if one.lower().endswith(_ENDINGS))
        else:
            paths = [path]
        found = tuple(_file(filesystem, one, source if one == path else None) for one in paths)
    if not found:
        raise ConfigurationError(
            f"{shown} matches no file" + ("." if _GLOB & set(path) else f" that ends with {', '.join(_ENDINGS)}."),
            changed=NOTHING_INSERTED,
            fix="Check the path on the machine where the backfill runs.",
        )
    return found


def shown_source(source: str) -> str:
    """A source's name without possible secrets: user, password, query (signatures) and fragment of a URL."""
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def opened(file: SourceFile) -> Generator[tuple[Any, Any, str]]:
    """The file's bytes, decompressed.

    Yields:
        The stream to read; the raw file below it, whose position shows the progress; `parquet` or `text`.

    Raises:
        ReconError: It cannot be opened or read, or is truncated.
    """
    import pyarrow as pa

    with _reading(file.name), file.filesystem.open(file.path, "rb") as raw:
        head = raw.read(4)
        raw.seek(0)
        if not head:
            raise ReconError(
                f"{file.name} is empty.", changed=NOTHING_INSERTED, fix="Export it again, or leave it out."
            )
        if head == _PARQUET:
            yield raw, raw, "parquet"
            return
        packed = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else None
        yield (pa.CompressedInputStream(pa.PythonFile(raw, "r"), packed) if packed else raw), raw, "text"


def _file(filesystem: Any, path: str, given: str | None) -> SourceFile:
    info = filesystem.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{path} is a folder")
    local = "file" in ((filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol)
    name = path if local else shown_source(given or filesystem.unstrip_protocol(path))
    return SourceFile(name, info.get("size"), filesystem, path)


@contextmanager
def _reading(name: str) -> Generator[None]:
    """Report errors of file systems, decompressors and Arrow in the three parts that a person needs."""
    try:
        yield
    except ReconError:
        raise
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{name} does not exist.",
            changed=NOTHING_INSERTED,
            fix="Check the path on the machine where the backfill runs.",
        ) from error
    except PermissionError as error:
        raise ReconError(
            f"{name} may not be read: {_first_line(error)}",
            changed=NOTHING_INSERTED,
            fix="Let the account that runs this read it.",
        ) from error
    except ImportError as error:
        raise ConfigurationError(
            f"{name} cannot be opened: {_first_line(error)}",
            changed=NOTHING_INSERTED,
            fix="Install what it names beside recon_pipeline, for example: uv pip install s3fs.",
        ) from error
    except (OSError, EOFError, ValueError) as error:  # Arrow's errors are of these kinds
        raise ReconError(
            f"{name} cannot be read, or is truncated: {_first_line(error)}",
            changed=WHAT_IS_DONE,
            fix="Get the whole file and run this again.",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def total_size(files: Sequence[SourceFile]) -> int | None:
    """The size of all files in bytes, or None if that of one is unknown."""
    sizes = [file.size for file in files]
    return sum(size for size in sizes if size is not None) if None not in sizes else None
