"""DuckDB, which counts a lake within one process; nothing has to be started.

Invariant: its memory has a limit, beyond which it writes to a folder that is deleted at the end. Files that are not on
this machine are read through fsspec, with the credentials of the environment.
"""

import glob
import itertools
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.errors import ReconError
from recon_pipeline.lake.engine import not_installed
from recon_pipeline.lake.engine_settings import DEFAULT_MEMORY_MB
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.lake.instants import since_1970
from recon_pipeline.lake.scratch import scratch_folder
from recon_pipeline.sources.finding import SourceFile

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

_NUMBERS_IN_A_MEGABYTE = 50_000
"""How many numbers are grouped at once for each megabyte of memory; it holds about half of these groups."""


class DuckDB:
    """An open DuckDB; made by `duckdb_engine`.

    Args:
        backend: Ibis's.
        memory_mb: Its limit.
    """

    def __init__(self, backend: Any, memory_mb: int) -> None:
        self._backend = backend
        self._memory_mb = memory_mb
        self._numbers = itertools.count()

    @property
    def label(self) -> str:
        """As `Engine` says."""
        return f"DuckDB {self._backend.version.removeprefix('v')}"

    def read_parquet(self, files: Sequence[SourceFile]) -> "ir.Table":
        """As `Engine` says."""
        with self._at_work():
            for filesystem in {id(file.filesystem): file.filesystem for file in files if not file.is_local}.values():
                self._backend.register_filesystem(filesystem)
            # In SQL, since Ibis would download an extension for what fsspec reads.
            name = f"files_{next(self._numbers)}"
            self._backend.raw_sql(
                f"create view {name} as select * from read_parquet({_list(files)}, "  # noqa: S608 - paths are quoted
                "hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"
            )
            return self._backend.table(name)

    def types_in(self, files: Sequence[SourceFile], columns: Collection[str]) -> Mapping[str, Sequence[str]]:
        """As `Engine` says; names of columns differ by more than capitals."""
        wanted, found = {name.lower(): name for name in columns}, dict[str, set[str]]()
        sql = f"select lower(name), duckdb_type, num_children, column_id from parquet_schema({_list(files)})"  # noqa: S608
        with self._at_work():
            rows = self._backend.con.execute(f"{sql} order by file_name, column_id")
            inside = 0
            while row := rows.fetchone():
                name, type_name, children, place = row
                if place == 0:  # the root, whose children are the columns
                    inside = 0
                elif inside:
                    inside += (children or 0) - 1
                else:
                    inside = children or 0
                    if name in wanted:
                        found.setdefault(wanted[name], set()).add(type_name)
        return {name: sorted(types) for name, types in found.items()}

    def read_stream(self, opened: Callable[[], "pa.RecordBatchReader"]) -> "ir.Table":
        """The rows of a stream of Arrow.

        Args:
            opened: Opens it, from the beginning, each time that the rows are read.

        Raises:
            ReconError: It cannot be opened.
        """
        with self._at_work():
            name = f"stream_{next(self._numbers)}"
            self._backend.con.register(name, _Stream(opened))
            return self._backend.table(name)

    def octets(self, text: Any) -> Any:
        """As `Engine` says."""
        import ibis  # noqa: PLC0415 - an extra

        @ibis.udf.scalar.builtin(name="strlen")
        def bytes_of(text: str) -> int: ...  # pyright: ignore[reportReturnType]

        return bytes_of(text)

    def since_1970(self, number: Any, per_second: int) -> Any:
        """As `Engine` says."""
        return since_1970(number, per_second, instant="make_timestamptz", divide="divide")

    def hashed(self, text: Any) -> Any:
        """As `Engine` says."""
        import ibis  # noqa: PLC0415 - an extra

        @ibis.udf.scalar.builtin(name="hash")
        def hash_of(text: str) -> int: ...  # pyright: ignore[reportReturnType]

        return hash_of(text)

    def repeated(self, numbers: "ir.Table") -> "ir.Table":
        """As `Engine` says: in parts, since DuckDB fails with groups of which memory holds only a small share."""
        (column,) = numbers.columns
        held, found = self._created("table", numbers), f"repeated_{next(self._numbers)}"
        name = held.get_name()
        with self._at_work():
            rows = self._backend.con.table(name).count("*").fetchall()[0][0]
            parts = max(1, -(-rows // (self._memory_mb * _NUMBERS_IN_A_MEGABYTE)))
            self._backend.raw_sql(f"create temp table {found} as from {name} limit 0")
            for part in range(parts):
                self._backend.raw_sql(
                    f"insert into {found} select {column} from {name} where {column} % {parts} = {part} "  # noqa: S608
                    f"group by {column} having count(*) > 1"
                )
            self._backend.raw_sql(f"drop table {name}")
            return self._backend.table(found)

    def view(self, expression: "ir.Table") -> "ir.Table":
        """As `Engine` says: Ibis would write `with` for what is used twice, and DuckDB keep its rows."""
        return self._created("view", expression)

    @contextmanager
    def run(self, expression: "ir.Table") -> Generator["pa.RecordBatchReader"]:
        """As `Engine` says."""
        with self._at_work():
            yield self._backend.to_pyarrow_batches(expression, chunk_size=100_000)

    def _created(self, kind: str, expression: "ir.Table") -> "ir.Table":
        with self._at_work():
            name = f"{kind}_{next(self._numbers)}"
            self._backend.raw_sql(f"create temp {kind} {name} as {self._backend.compile(expression)}")
            return self._backend.table(name)

    @contextmanager
    def _at_work(self) -> Generator[None]:
        import duckdb  # noqa: PLC0415 - an extra

        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise ReconError(
                f"{self.label} needs more than its {self._memory_mb:,} MB of memory, or more than the folder for "
                f"temporary files holds: {_first_line(error)}",
                changed=NOTHING_COUNTED,
                fix="Set RECON_LAKE_MEMORY_MB higher, or free space in the folder that TMPDIR names.",
            ) from error
        except duckdb.Error as error:
            raise ReconError(
                f"{self.label} cannot read the lake: {_first_line(error)}",
                changed=NOTHING_COUNTED,
                fix="If a file is named, check that it is whole and readable; else run this again.",
            ) from error


@dataclass(frozen=True)
class _Stream:
    """What DuckDB opens anew for each reading: a reader itself would silently have no rows the second time."""

    opened: Callable[[], "pa.RecordBatchReader"]

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.opened().__arrow_c_stream__(requested_schema)


@contextmanager
def duckdb_engine(memory_mb: int = DEFAULT_MEMORY_MB) -> Generator[DuckDB]:
    """DuckDB, open until the end of the block.

    Args:
        memory_mb: What it may hold in memory.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import ibis  # noqa: PLC0415 - an extra
        import ibis.backends.duckdb  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise not_installed("DuckDB", "lake", error) from error
    with scratch_folder() as scratch:
        backend = ibis.duckdb.connect(
            memory_limit=f"{memory_mb}MB",
            temp_directory=str(scratch),
            preserve_insertion_order=False,
            autoinstall_known_extensions=False,
        )
        backend.raw_sql("set TimeZone = 'UTC'")
        # It makes a join of each list of texts that stand for null, which takes longer than to compare them.
        backend.raw_sql("set disabled_optimizers = 'in_clause'")
        try:
            yield DuckDB(backend, memory_mb)
        finally:
            backend.disconnect()


def _list(files: Sequence[SourceFile]) -> str:
    """The paths of files as a list in DuckDB's SQL."""
    return "[" + ", ".join(f"'{_path(file)}'" for file in files) + "]"


def _path(file: SourceFile) -> str:
    """The file's path in a text of DuckDB's SQL; no character of it stands for others."""
    path = file.path if file.is_local else file.filesystem.unstrip_protocol(file.path)
    return glob.escape(path).replace("'", "''")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
