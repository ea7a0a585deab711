"""What an engine does: it reads Parquet files as a table, and runs an expression over it.

Invariant: the packages of an engine are imported when it is opened, never before: whoever has no lake needs none.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.sources.finding import SourceFile

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa


class Engine(Protocol):
    """An engine that is open."""

    @property
    def label(self) -> str:
        """Its name with its version, as it is recorded with what it counted: `DuckDB 1.5.6`."""
        ...

    def read_parquet(self, files: Sequence[SourceFile]) -> "ir.Table":
        """The rows of all files, with the columns that the names of their folders give (`month=2026-05/`), as text.

        A column that only some of the files have is null in the others.

        Raises:
            ReconError: A file cannot be read.
        """
        ...

    def types_in(self, files: Sequence[SourceFile], columns: Collection[str]) -> Mapping[str, Sequence[str]]:
        """The types that these columns have in files, each once, where this engine reads different types as one.

        Raises:
            ReconError: A file cannot be read.
        """
        ...

    def octets(self, text: Any) -> Any:
        """The length of a column of texts in bytes of UTF-8, as a column."""
        ...

    def since_1970(self, number: Any, per_second: int) -> Any:
        """The times that a column of whole numbers (int64) counts from 1970 on, as a column; cut to microseconds.

        Args:
            number: The column.
            per_second: How many of them make a second: 1, or 10 to the power of 3, 6 or 9.
        """
        ...

    def hashed(self, text: Any) -> Any:
        """A number of 64 bits for each text of a column, the same for the same text, as a column."""
        ...

    def repeated(self, numbers: "ir.Table") -> "ir.Table":
        """The numbers of 64 bits that are there more than once, each once, as a table that is not computed again.

        Args:
            numbers: One column, of any number of rows; what does not fit in memory is on disk meanwhile.

        Raises:
            ReconError: The engine ran out of memory, or cannot read a file.
        """
        ...

    def view(self, expression: "ir.Table") -> "ir.Table":
        """An expression over tables of this engine as a table that is computed anew at each use, never kept."""
        ...

    def run(self, expression: "ir.Table") -> AbstractContextManager["pa.RecordBatchReader"]:
        """The rows of an expression over tables of this engine, in batches.

        Raises:
            ReconError: The engine ran out of memory, or cannot read a file.
        """
        ...


def not_installed(label: str, extra: str, error: ImportError) -> ConfigurationError:
    """The error of an engine whose packages are not there."""
    return ConfigurationError(
        f"{label} is not installed: {error}.",
        changed=NOTHING_COUNTED,
        fix=f"Install it where this runs: uv pip install 'recon-pipeline[{extra}]'.",
    )
