"""A lake that is a table with a log of its own: one version of it, as the library of its format reads it.

Invariant: it is the version that was newest when it was found. Rows that were deleted do not come back, and no file is
read that the log does not name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from recon_pipeline.lake.files import FileRead


@dataclass(frozen=True)
class TableVersion:
    """Which version of which table was read.

    Attributes:
        format: `Delta` or `Iceberg`.
        table: The table's id, which it keeps when it is moved or renamed.
        version: Delta's version, or Iceberg's snapshot id.
    """

    format: str
    table: str
    version: int

    def __str__(self) -> str:
        return f"{self.format} {'version' if self.format == 'Delta' else 'snapshot'} {self.version}"


@dataclass(frozen=True)
class Between:
    """The rows whose time in a column is in a half-open range."""

    column: str
    start: datetime
    end: datetime


Scan = Callable[[pa.Schema, Between | None], pa.RecordBatchReader]
"""Opens a stream of some columns; of all rows, or of those in a range."""


@dataclass(frozen=True)
class LakeTable:
    """A version of a table.

    Attributes:
        version: Which.
        files: Of that version, with those that say which rows were deleted, in the order of their names.
        schema: Its columns.
        scan: Reads it.
    """

    version: TableVersion
    files: tuple[FileRead, ...]
    schema: pa.Schema
    scan: Scan

    def stream(self, columns: list[str], between: Between | None) -> pa.RecordBatchReader:
        """Rows with some of its columns: at least those of a range, where that is one of times with a zone."""
        has_zone = between is not None and getattr(self.schema.field(between.column).type, "tz", None) is not None
        return self.scan(pa.schema([self.schema.field(name) for name in columns]), between if has_zone else None)
