"""A lake that is open to be counted, month by month, and the sums as they are sent to a database.

Invariant: the files are those of one listing, and must stay what they are until the sums have been read to the end.
"""

import io
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from recon_pipeline.core.backfill.default_mapping import default_mapping
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.lake.duckdb_engine import duckdb_engine
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.files import NOTHING_COUNTED, FileRead, files_read, require_unchanged
from recon_pipeline.lake.mapped import mapped_events, of_month
from recon_pipeline.lake.settings import LakeSettings
from recon_pipeline.lake.sums import KEY, event_sums
from recon_pipeline.sources.failures import reading
from recon_pipeline.sources.finding import SourceFile, find_files
from recon_pipeline.sources.names import shown_source

pc: Any = pyarrow.compute  # whose functions are made when it is imported
STAGED_COUNTS = ("event_count", "invalid_count", "dedupe_count", "outside_period_count")


@dataclass(frozen=True)
class MonthSums:
    """The event sums of a month, as they are read from the engine.

    Attributes:
        pieces: Lines of CSV with `KEY`, `STAGED_COUNTS`, and the pieces of sum and of credits, each as an array of
            Postgres.
        powers: By which power of ten each piece is multiplied before all are added.
    """

    pieces: Iterator[bytes]
    powers: tuple[int, ...]


@dataclass(frozen=True)
class OpenLake:
    """A lake that an engine reads.

    Attributes:
        engine: Which.
        events: Its table of them.
        files: That the table is of.
        source: What is recorded of them.
        identity: What names an event.
    """

    engine: Engine
    events: Any
    files: tuple[SourceFile, ...]
    source: "LakeSource"
    identity: EventIdentity

    @contextmanager
    def sums(self, usage: MeteredUsage, month: BillingMonth) -> Generator[MonthSums]:
        """The event sums of a month; its first rows are there when this returns, so the engine has done its work.

        Raises:
            ReconError: A file cannot be read, or the engine ran out of memory.
        """
        found = event_sums(self.engine, of_month(self.events, usage, month), self.identity)
        with self.engine.run(found.table) as batches:
            yield MonthSums(_lines(next(batches, None), batches, len(found.powers)), found.powers)

    def require_unchanged(self) -> None:
        """Refuse sums of files that changed since they were listed; to be asked when the sums have been read.

        Raises:
            ReconError: One changed, or is gone.
        """
        require_unchanged(self.files, self.source.files)


@dataclass(frozen=True)
class LakeSource:
    """What a count is of, so that it can be done again.

    Attributes:
        url: The lake, without password and signature.
        identity: The columns that name an event.
        mapping: As a person wrote it; empty: columns are named as those of `billing_usage_events`.
        files: All of the lake, as they were.
    """

    url: str
    identity: tuple[str, ...]
    mapping: dict[str, Any]
    files: tuple[FileRead, ...]

    @property
    def as_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return asdict(self) | {"identity": list(self.identity), "files": [asdict(one) for one in self.files]}


def find_source(settings: LakeSettings, identity: EventIdentity) -> tuple[LakeSource, tuple[SourceFile, ...]]:
    """What is in the lake now.

    Raises:
        ReconError: It cannot be listed, or holds no file.
    """
    skip = settings.mapping.skip if settings.mapping is not None else ()
    shown = shown_source(settings.url)
    with reading_lake(), reading(shown):
        files = find_files(settings.url, skip=skip)
        read = files_read(files)
    mapping = settings.mapping.model_dump(mode="json", exclude_defaults=True) if settings.mapping is not None else {}
    return LakeSource(shown, identity.columns, mapping, read), files


@contextmanager
def open_lake(
    settings: LakeSettings, source: LakeSource, files: tuple[SourceFile, ...], identity: EventIdentity
) -> Generator[OpenLake]:
    """The lake, open for an engine until the end of the block.

    Raises:
        ReconError: The engine is not installed, a file cannot be read, or its columns are not those of the mapping.
    """
    with duckdb_engine(settings.memory_mb) as engine:
        rows = engine.read_parquet(files)
        spec = settings.mapping or default_mapping(rows.columns, source="The lake", names_vary=False)
        yield OpenLake(engine, mapped_events(rows, spec), files, source, identity)


@contextmanager
def reading_lake() -> Generator[None]:
    """Report what fails while files are listed.

    Raises:
        ReconError: With what that means for a count.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(error.what, changed=NOTHING_COUNTED, fix=error.fix) from error
    except ReconError as error:
        raise ReconError(
            error.what,
            changed=NOTHING_COUNTED,
            fix="Check that the storage answers, and that the account that runs this may read it; then run this again.",
        ) from error


def _lines(first: pa.RecordBatch | None, rest: Iterator[pa.RecordBatch], pieces: int) -> Iterator[bytes]:
    batch = first
    while batch is not None:
        yield _as_csv(batch, pieces)
        batch = next(rest, None)


def _as_csv(batch: pa.RecordBatch, pieces: int) -> bytes:
    names = batch.column("gateway_customer_id")
    # Postgres can hold no such name: its events belong to no counter.
    has_nul = pc.match_substring(names, "\0")
    columns = {name: batch.column(name) for name in (*KEY, *STAGED_COUNTS)}
    if pc.any(has_nul).as_py():
        columns["gateway_customer_id"] = pc.if_else(has_nul, "", names)
        columns["invalid_count"] = pc.add(
            columns["invalid_count"], pc.if_else(has_nul, pc.add(columns["event_count"], columns["dedupe_count"]), 0)
        )
        for name in ("event_count", "dedupe_count"):
            columns[name] = pc.if_else(has_nul, 0, columns[name])
    for name in ("usage", "credit"):
        parts = [batch.column(f"{name}_{index}").cast(pa.string()).fill_null("0") for index in range(pieces)]
        joined = pc.binary_join_element_wise(*parts, ",")
        columns[name] = pc.binary_join_element_wise("{", joined, "}", "")
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(columns), buffer, pyarrow.csv.WriteOptions(include_header=False))
    return buffer.getvalue()
