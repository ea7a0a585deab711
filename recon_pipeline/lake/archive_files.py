"""Writes a sealed month as Parquet files with a manifest, and fetches them again only as they were written.

    TO/month=2025-01/gateway=stripe/usage=remote_commands/seal-12-3f9a0c71/part-00000.parquet … manifest.json

Invariant: the manifest is written last, in one step, so that a folder without one is not whole: it is being written, or
was left by a killed archive. An archive deletes nothing but what it has written itself: others may write beside it, of
other databases too. A file is given to a reader only if its SHA-256 is that of the manifest, and the manifest only if
its own is what was recorded.
"""

import errno
import hashlib
import io
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from recon_pipeline.core.errors import ReconError
from recon_pipeline.lake.folders import Folder, LostFileError, reaching
from recon_pipeline.lake.manifest import ArchivedFile, Manifest
from recon_pipeline.lake.scratch import scratch_folder

FILE_BYTES = 128 * 2**20
"""A file is closed after the batch with which it reaches this size."""

MANIFEST = "manifest.json"
_MOST_DIGITS = 38
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_UNIQUE = ("id", "request_id", "event_timestamp", "created_at")
"""Columns of which Parquet makes no dictionary: it would take a quarter of the time of writing, and be of no use."""


def new_folder(to: Folder, month: str, gateway_name: str, usage_type: str, seal_id: int) -> Folder:
    """A folder for a new archive of a month, which nobody else writes to."""
    names = (f"month={month}", f"gateway={quote(gateway_name, safe='')}", f"usage={quote(usage_type, safe='')}")
    return to.below(*names, f"seal-{seal_id}-{secrets.token_hex(4)}")


def with_decimals(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], digits: Sequence[int | None]
) -> pa.RecordBatchReader:
    """The batches with columns of numbers as decimals, with so many digits after the point, instead of text."""
    types = [
        field.type if after is None else pa.decimal128(_MOST_DIGITS, after)
        for field, after in zip(schema, digits, strict=True)
    ]
    kept = pa.schema([pa.field(name, of) for name, of in zip(schema.names, types, strict=True)])

    def made() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            arrays = [array.cast(of) for array, of in zip(batch.columns, types, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=kept)

    return pa.RecordBatchReader.from_batches(kept, made())


def write_files(folder: Folder, batches: Iterable[pa.RecordBatch]) -> tuple[ArchivedFile, ...]:
    """Write rows as files of bounded size.

    Raises:
        ReconError: The store cannot be written; what was written is without a manifest.
    """
    written: list[ArchivedFile] = []
    with reaching(folder.url, is_written=True):
        folder.make()
    remaining = iter(batches)
    batch = next(remaining, None)
    while batch is not None:
        name, rows = f"part-{len(written):05}.parquet", 0
        final = folder.below(name)
        with reaching(final.url, is_written=True), final.filesystem.open(final.path, "wb") as file:
            sink = _Hashed(file)
            with pq.ParquetWriter(sink, batch.schema, **_encoding(batch.schema)) as writer:
                while batch is not None:
                    writer.write_batch(batch)
                    rows += batch.num_rows
                    batch = next(remaining, None)
                    if sink.tell() >= FILE_BYTES:
                        break
        written.append(ArchivedFile(name, rows, sink.tell(), sink.digest.hexdigest()))
    return tuple(written)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How the columns of a file are written."""
    nearly_unique = [field for field in schema if field.name in _NEARLY_UNIQUE]
    return {
        "compression": "zstd",
        "use_dictionary": [field.name for field in schema if field not in nearly_unique],
        # Times of events that follow each other differ by little.
        "column_encoding": {
            field.name: "DELTA_BINARY_PACKED" for field in nearly_unique if pa.types.is_timestamp(field.type)
        },
        # Least and greatest of a text, in each group of rows, help no reader: events come as they were written.
        "write_statistics": [field.name for field in schema if not pa.types.is_string(field.type)],
    }


def write_manifest(folder: Folder, manifest: Manifest) -> str:
    """Write the manifest in one step, beside the files; returns its SHA-256.

    Raises:
        ReconError: The store cannot be written, or the folder is not there any more.
    """
    content, final = manifest.as_bytes(), folder.below(MANIFEST)
    with reaching(final.url, is_written=True):
        folder.filesystem.pipe_file(f"{final.path}.partial", content)
        folder.filesystem.mv(f"{final.path}.partial", final.path)
        if folder.is_local:
            os.sync()  # once the archive is recorded its events may be deleted, whenever this machine loses its power
    return hashlib.sha256(content).hexdigest()


def remove(folder: Folder) -> None:
    """Delete the files of an archive that is not recorded.

    Raises:
        ReconError: The store cannot be written.
    """
    with reaching(folder.url, is_written=True):
        if folder.filesystem.exists(folder.path):
            folder.filesystem.rm(folder.path, recursive=True)


def read_manifest(folder: Folder, checksum: str) -> Manifest:
    """The manifest of a recorded archive.

    Raises:
        LostFileError: It is missing, or not what was recorded.
    """
    file = folder.below(MANIFEST)
    with reaching(file.url):
        content: bytes = file.filesystem.cat_file(file.path)
    _require(file, hashlib.sha256(content).hexdigest(), checksum)
    return Manifest.read(content)


def fetched(folder: Folder, manifest: Manifest) -> Iterator[Path]:
    """Each file on this machine, one at a time, once its SHA-256 was found to be that of the manifest.

    Raises:
        LostFileError: A file is missing, or was changed; it is named.
        ReconError: There is no room for a copy of it.
    """
    for one in manifest.files:
        file = folder.below(one.name)
        with scratch_folder() as scratch:
            local = Path(file.path) if folder.is_local else scratch / one.name
            with reaching(file.url):
                if not folder.is_local:
                    _copy(file, local)
                with local.open("rb") as copy:
                    digest = hashlib.file_digest(copy, "sha256").hexdigest()
            _require(file, digest, one.sha256)
            yield local


def _copy(file: Folder, local: Path) -> None:
    try:
        file.filesystem.get_file(file.path, str(local))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ReconError(
            f"{file.url} cannot be read: {local.parent.parent} has no room for a copy of it ({error.strerror}).",
            fix="Free space there, or let TMPDIR name another folder; then run the command again.",
        ) from error


def _require(file: Folder, digest: str, expected: str) -> None:
    if digest != expected:
        raise _changed(file, f"its SHA-256 is {digest}, and not {expected}")


def _changed(file: Folder, how: str) -> LostFileError:
    return LostFileError(
        f"{file.url} was changed after it was archived: {how}.",
        changed="No counter was changed.",
        fix="Restore it from a copy of the archive; the events are nowhere else if they have left the log.",
    )


class _Hashed(io.RawIOBase):
    """A file that is written, with the SHA-256 of what was."""

    def __init__(self, below: Any) -> None:
        self._below = below
        self._bytes = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._below.write(data)
        self._bytes += len(data)
        return len(data)

    def tell(self) -> int:
        return self._bytes
