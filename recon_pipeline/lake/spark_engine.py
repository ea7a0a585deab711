"""Spark, which counts a lake on many machines; only sums by key come back from it.

Invariant: what Spark could skip, round, wrap or take for local time is exact or an error (`spark_session`). No wait is
without a bound: Spark itself would wait for ever for executors that do not come (`spark_waiting`).
"""

import itertools
import os
import re
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.lake.engine_settings import EngineSettings
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.lake.instants import since_1970
from recon_pipeline.lake.spark_errors import spark_errors
from recon_pipeline.lake.spark_session import spark_session
from recon_pipeline.lake.spark_waiting import executors_awaited
from recon_pipeline.sources.finding import SourceFile

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

_OF_PATTERNS = re.compile(r"([\\*?\[\]{}])")
_BATCH_ROWS = 100_000


class Spark:
    """An open session of Spark; made by `spark_engine`.

    Args:
        session: PySpark's.
        settings: Of the engine.
    """

    def __init__(self, session: Any, settings: EngineSettings) -> None:
        import ibis  # noqa: PLC0415 - an extra

        self._session = session
        self._settings = settings
        self._backend: Any = ibis.pyspark.connect(session)
        self._numbers = itertools.count()

    @property
    def label(self) -> str:
        """As `Engine` says."""
        return f"Spark {self._session.version}"

    def read_parquet(self, files: Sequence[SourceFile]) -> "ir.Table":
        """As `Engine` says."""
        require_seen(files)
        with self._at_work():
            frame = self._session.read.option("basePath", _folder_of_all(files)).parquet(*map(_pattern, files))
            name = f"files_{next(self._numbers)}"
            frame.createOrReplaceTempView(name)
            with_zone = [field.name for field in frame.schema if field.dataType.typeName() == "timestamp"]
            # Ibis takes every time of Spark's for one without a zone.
            return self._backend.table(name).cast(dict.fromkeys(with_zone, "timestamp('UTC', 6)"))

    def types_in(self, files: Sequence[SourceFile], columns: Collection[str]) -> Mapping[str, Sequence[str]]:
        """As `Engine` says: Spark refuses files of which a column has different types."""
        return {}

    def octets(self, text: Any) -> Any:
        """As `Engine` says."""
        import ibis  # noqa: PLC0415 - an extra

        @ibis.udf.scalar.builtin(name="octet_length")
        def bytes_of(text: str) -> int: ...  # pyright: ignore[reportReturnType]

        return bytes_of(text)

    def since_1970(self, number: Any, per_second: int) -> Any:
        """As `Engine` says."""
        return since_1970(number, per_second, instant="timestamp_micros", divide="div")

    def hashed(self, text: Any) -> Any:
        """As `Engine` says."""
        import ibis  # noqa: PLC0415 - an extra

        @ibis.udf.scalar.builtin(name="xxhash64")
        def hash_of(text: str) -> int: ...  # pyright: ignore[reportReturnType]

        return hash_of(text)

    def repeated(self, numbers: "ir.Table") -> "ir.Table":
        """As `Engine` says."""
        all_numbers: Any = numbers
        repeated = all_numbers.group_by(all_numbers.columns).having(all_numbers.count() > 1).agg()
        with self._at_work():
            name = f"repeated_{next(self._numbers)}"
            frame = self._backend.raw_sql(self._backend.compile(repeated)).persist()
            frame.count()
            frame.createOrReplaceTempView(name)
            return self._backend.table(name)

    def view(self, expression: "ir.Table") -> "ir.Table":
        """As `Engine` says."""
        return expression

    @contextmanager
    def run(self, expression: "ir.Table") -> Generator["pa.RecordBatchReader"]:
        """As `Engine` says."""
        with self._at_work():
            # Not by Ibis, which makes an object of Python of each value on the way.
            found = self._backend.raw_sql(self._backend.compile(expression)).toArrow()
        yield found.cast(expression.schema().to_pyarrow()).to_reader(max_chunksize=_BATCH_ROWS)

    @contextmanager
    def _at_work(self) -> Generator[None]:
        with spark_errors(self.label, self._settings), executors_awaited(self._session, self._settings):
            yield


@contextmanager
def spark_engine(settings: EngineSettings) -> Generator[Spark]:
    """Spark, with a session that is open until the end of the block.

    Raises:
        ReconError: PySpark or Java is not installed, or Spark does not answer.
    """
    with spark_session(settings) as session:
        yield Spark(session, settings)


def _folder_of_all(files: Sequence[SourceFile]) -> str:
    """The folder of all files that is above the folders whose names give columns, which Spark then looks for."""
    parts = os.path.commonpath([os.path.dirname(file.path) for file in files]).split("/")
    return _url(files[0], "/".join(itertools.takewhile(lambda part: "=" not in part, parts)))


def require_seen(files: Sequence[SourceFile]) -> None:
    """Refuse files that Spark takes for hidden, also where they are named: it would leave them out."""
    hidden = [file.name for file in files if file.path.rpartition("/")[2].startswith(("_", "."))]
    if hidden:
        raise ConfigurationError(
            f"{hidden[0]} is hidden from Spark: its name begins with _ or a dot.",
            changed=NOTHING_COUNTED,
            fix="Rename it, or set RECON_LAKE_ENGINE=duckdb.",
        )


def _pattern(file: SourceFile) -> str:
    """The URL of a file as a pattern of Spark's that only its name fits."""
    return _OF_PATTERNS.sub(r"\\\1", _url(file, file.path))


def _url(file: SourceFile, path: str) -> str:
    return f"file://{path}" if file.is_local else re.sub("^s3://", "s3a://", file.filesystem.unstrip_protocol(path))
