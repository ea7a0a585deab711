"""Which files a path, glob, folder or URL stands for, and which of them are not read, each with its reason.

Invariant: every file below a folder is found or named as not read. What Spark, Hive and Arrow hide is hidden: names
that begin with `_` or a dot. fsspec opens the URLs: S3, GCS and others need an additional package.
"""

import glob
import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from recon_pipeline.core.backfill.mapping import NOTHING_INSERTED
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.sources.failures import reading
from recon_pipeline.sources.filesystems import filesystem_of, is_a_web, is_local, refuse_password
from recon_pipeline.sources.names import STDIN, Unread, shown_source

_GLOB = frozenset("*?[")
_PARTITION = re.compile(r"[^=]+=")
_VERSION_KEYS = (
    "size",
    "mtime",
    "LastModified",
    "ETag",
    "etag",
    "last_modified",
    "updated",
    "ino",
    "Last-Modified",
    "Content-MD5",
    "Digest",
)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_TABLE_LOGS = {"_delta_log": "a Delta", ".hoodie": "a Hudi", ".hoodie_partition_metadata": "a Hudi"}
_FIX_PATH = "Check the path on the machine where this runs."


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        name: For people and for `metadata`: without password and signature.
        size: In bytes, or None if the file system does not report it.
        path: Within the file system; `-` for what is piped in.
        partitions: Columns that the names of its folders give, as in `month=2026-05/`.
    """

    name: str
    size: int | None
    filesystem: Any
    path: str
    partitions: tuple[tuple[str, str | None], ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether its path is one of this machine."""
        return is_local(self.filesystem)

    @property
    def is_web(self) -> bool:
        """Whether a web server answers with it."""
        return is_a_web(self.filesystem)

    @property
    def is_piped(self) -> bool:
        """Whether it can be read only once: standard input, a named pipe, a device."""
        return self.path == STDIN or (self.is_local and not stat.S_ISREG(os.stat(self.path).st_mode))

    def version(self) -> tuple[Any, ...] | None:
        """What changes if the file does; None if nothing shows that."""
        if self.path == STDIN or self.is_piped:
            return None
        if self.is_local:
            now = os.stat(self.path)
            return (now.st_size, now.st_mtime_ns, now.st_ino)
        self.filesystem.invalidate_cache()
        info = self.filesystem.info(self.path)
        return tuple(info.get(key) for key in _VERSION_KEYS)


class TableFilesError(ConfigurationError):
    """Files belong to a table with a log of its own, and are not to be read without it."""


def find_files(
    source: str, *, skip: Sequence[str] = (), on_unread: Callable[[Unread], object] = lambda _: None
) -> tuple[SourceFile, ...]:
    """The files of a path, glob, folder or URL, in the order of their names.

    Args:
        source: As a person gave it.
        skip: Patterns of names of files that are left out.
        on_unread: Called with each file that is left out.

    Raises:
        ReconError: There is none, or it cannot be reached, or it is a table with a log of its own.
    """
    shown = shown_source(source)
    if source == STDIN:
        return (SourceFile("standard input", None, None, STDIN),)
    refuse_password(source, shown)
    with reading(shown):
        filesystem, path = filesystem_of(source, shown)
        is_web = is_a_web(filesystem)
        # A file whose name contains [1] is itself before it is a pattern.
        if is_web or not _GLOB & set(path) or filesystem.exists(path):
            root, paths = path, _below(filesystem, path) if not is_web and filesystem.isdir(path) else [path]
        else:
            root, paths = _fixed_part(path), _matching(filesystem, path)
        if not is_web:
            _refuse_tables(filesystem, root, paths)
        asked = path[len(root) :]
        wanted = [one for one in paths if not _left_out(one, root, asked, skip, on_unread)]
        for one in wanted if is_local(filesystem) else ():
            _refuse_link(one)
        found = tuple(_file(filesystem, one, source if one == path else None) for one in wanted)
    if not found:
        raise ConfigurationError(f"{shown} holds no file that is read.", changed=NOTHING_INSERTED, fix=_FIX_PATH)
    return found


def total_size(files: Sequence[SourceFile]) -> int | None:
    """The size of all files in bytes, or None if that of one is unknown."""
    sizes = [file.size for file in files]
    return sum(size for size in sizes if size is not None) if None not in sizes else None


def _loud(filesystem: Any) -> dict[str, str]:
    """A folder that may not be listed is an error: fsspec would skip it."""
    return {"on_error": "raise"} if is_local(filesystem) else {}


def _below(filesystem: Any, folder: str) -> list[str]:
    return sorted(filesystem.find(folder, **_loud(filesystem)))


def _refuse_link(path: str) -> None:
    """Refuse a link that leads to nothing, or to a folder, whose other content is unknown."""
    if os.path.islink(path) and (os.path.isdir(path) or not os.path.exists(path)):
        leads = "a folder" if os.path.isdir(path) else "no file"
        raise ConfigurationError(
            f"{shown_source(path)} is a link to {leads}.",
            changed=NOTHING_INSERTED,
            fix="Give the folder that it leads to as a source of its own; skip: in the mapping leaves the link out.",
        )


def _matching(filesystem: Any, pattern: str) -> list[str]:
    """What a glob matches; of a folder that it matches, every file."""
    found: set[str] = set()
    for one in filesystem.glob(pattern, **_loud(filesystem)):
        found.update(_below(filesystem, one) if filesystem.isdir(one) else [one])
    return sorted(found)


def _fixed_part(pattern: str) -> str:
    """The folder of a glob before its first wildcard."""
    start = next(index for index, one in enumerate(pattern) if one in _GLOB)
    return pattern[: pattern.rfind("/", 0, start) + 1]


def _left_out(path: str, root: str, asked: str, skip: Sequence[str], on_unread: Callable[[Unread], object]) -> bool:
    below = path[len(root) :].strip("/")
    pattern = next((one for one in skip if fnmatch(below or path, one) or fnmatch(PurePosixPath(path).name, one)), None)
    hidden = next((part for part in below.split("/") if _is_hidden(part)), None)
    named = any(_is_hidden(part) for part in asked.split("/"))
    if pattern is None and (hidden is None or named):
        return False
    reason = f"the mapping skips {pattern}" if pattern is not None else f"{hidden} is hidden, as for Spark and Arrow"
    on_unread(Unread(shown_source(path), reason))
    return True


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _refuse_tables(filesystem: Any, root: str, paths: Sequence[str]) -> None:
    """Refuse files of a table with a log of its own: some hold rows that were deleted, and only the log says which.

    The log may lie in any folder above them, also above the requested one; folders that may not be read are not
    searched.
    """
    folders: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in paths}:
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in sorted(folders):
        with suppress(*(() if len(folder) >= len(root.rstrip("/")) else (PermissionError,))):
            for log, kind in _TABLE_LOGS.items():
                if folder.endswith(f"/{log}") or filesystem.exists(f"{folder}/{log}"):
                    raise _table(folder.removesuffix(f"/{log}"), kind)
        table, _, name = folder.rpartition("/")
        if name == "data":
            with suppress(*(() if table.startswith(root.rstrip("/")) else (PermissionError,))):
                if filesystem.glob(f"{glob.escape(table)}/metadata/*.metadata.json"):
                    raise _table(table, "an Iceberg")
    iceberg = next((path for path in paths if re.search(r"/metadata/[^/]*\.metadata\.json$", path)), None)
    if iceberg is not None:
        raise _table(iceberg.rpartition("/metadata/")[0], "an Iceberg")


def _table(folder: str, kind: str) -> TableFilesError:
    return TableFilesError(
        f"{shown_source(folder)} is {kind} table: its files also hold rows that were deleted or changed since.",
        changed=NOTHING_INSERTED,
        fix="Write its rows as Parquet with a program that knows its log, such as Spark or DuckDB; give those.",
    )


def _file(filesystem: Any, path: str, given: str | None) -> SourceFile:
    info = filesystem.info(path)
    if info.get("type") == "directory":
        raise IsADirectoryError(f"{path} is a folder")
    name = shown_source(path if is_local(filesystem) else given or filesystem.unstrip_protocol(path))
    folders = [part.split("=", 1) for part in path.split("/")[:-1] if _PARTITION.match(part)]
    partitions = tuple((unquote(key), None if value == _NULL_PARTITION else unquote(value)) for key, value in folders)
    file = SourceFile(name, info.get("size"), filesystem, path, partitions)
    return replace(file, size=None) if file.is_piped else file
