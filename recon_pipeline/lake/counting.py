"""A lake that is open to be counted, month by month, and the sums as they are sent to a database.

Invariant: the files are those of one listing, and must stay what they are until the sums have been read to the end; of
a table with a log of its own, one version is read.
"""

import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from recon_pipeline.core.backfill.default_mapping import default_mapping
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.core.errors import ConfigurationError, ReconError
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.lake.column_types import require_common_types
from recon_pipeline.lake.delta import delta_table, is_delta
from recon_pipeline.lake.duckdb_engine import DuckDB, duckdb_engine
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.engines import open_engine, require_duckdb
from recon_pipeline.lake.files import NOTHING_COUNTED, FileRead, files_read, require_one_layout, require_unchanged
from recon_pipeline.lake.iceberg import iceberg_table, is_iceberg
from recon_pipeline.lake.mapped import in_no_month, mapped_events, of_month, require_known
from recon_pipeline.lake.month_sums import MonthSums
from recon_pipeline.lake.settings import LakeSettings
from recon_pipeline.lake.sums import ARRIVAL, KEY, event_sums
from recon_pipeline.lake.tables import Between, LakeTable, TableVersion
from recon_pipeline.sources.failures import reading
from recon_pipeline.sources.filesystems import refuse_password
from recon_pipeline.sources.finding import SourceFile, TableFilesError, find_files
from recon_pipeline.sources.names import shown_source

_Opened = tuple[Engine, Sequence[str], Callable[[MappingSpec, BillingMonth | None], Any]]


@dataclass(frozen=True)
class LakeSource:
    """What a count is of, so that it can be done again.

    Attributes:
        url: The lake, without password and signature.
        identity: The columns that name an event.
        mapping: As a person wrote it; empty: columns are named as those of `billing_usage_events`.
        files: All of the lake, as they were.
        table: The version that they are of, if the lake is a table with a log of its own.
    """

    url: str
    identity: tuple[str, ...]
    mapping: dict[str, Any]
    files: tuple[FileRead, ...]
    table: TableVersion | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """As it is recorded."""
        found = {**asdict(self), "identity": list(self.identity), "files": [asdict(one) for one in self.files]}
        return found if self.table is not None else {name: found[name] for name in found if name != "table"}


@dataclass(frozen=True)
class FoundLake:
    """What is in a lake at one time.

    Attributes:
        source: What is recorded of it.
        files: To be read, unless it is a table.
        table: With a log of its own, or None.
    """

    source: LakeSource
    files: tuple[SourceFile, ...]
    table: LakeTable | None

    def require_unchanged(self) -> None:
        """Refuse sums of files that changed since they were listed; those of a version of a table never change.

        Raises:
            ReconError: One changed, or is gone.
        """
        if self.table is None:
            require_unchanged(self.files, self.source.files)


@dataclass(frozen=True)
class OpenLake:
    """A lake that an engine reads.

    Attributes:
        engine: Which.
        events_of: A table of the engine with the events of a month, and maybe of others; None: of all.
        identity: What names an event.
    """

    engine: Engine
    events_of: Callable[[BillingMonth | None], Any]
    identity: EventIdentity

    def in_no_month(self) -> int:
        """How many events of the lake no month has, of whichever metered usage.

        Raises:
            ReconError: A file cannot be read.
        """
        with self.engine.run(in_no_month(self.events_of(None))) as batches:
            return sum(batch.column("events")[0].as_py() for batch in batches)

    @contextmanager
    def sums(self, usage: MeteredUsage, month: BillingMonth) -> Generator[MonthSums]:
        """The event sums of a month; its first rows are there when this returns, so the engine has done its work.

        Raises:
            ReconError: A file cannot be read, or the engine ran out of memory.
        """
        found = event_sums(self.engine, of_month(self.events_of(month), usage, month), self.identity)
        with self.engine.run(found.table.order_by(KEY)) as batches:  # as an index is filled in half the time
            first = [batch for batch in (next(batches, None),) if batch is not None]
            yield MonthSums(itertools.chain(first, batches), found.powers)


def find_lake(settings: LakeSettings, identity: EventIdentity) -> FoundLake:
    """What is in the lake now.

    Raises:
        ReconError: It cannot be listed, or holds no file.
    """
    shown = shown_source(settings.url)
    mapping = settings.mapping.model_dump(mode="json", exclude_defaults=True) if settings.mapping is not None else {}
    files: tuple[SourceFile, ...] = ()
    with reading_lake(), reading(shown):
        refuse_password(settings.url, shown)
        table = _find_table(settings.url)
        if table is None:
            files = find_files(settings.url, skip=settings.mapping.skip if settings.mapping is not None else ())
            require_one_layout(files)
        read = files_read(files) if table is None else table.files
    version = table.version if table is not None else None
    return FoundLake(LakeSource(shown, identity.columns, mapping, read, version), files, table)


@contextmanager
def open_lake(settings: LakeSettings, found: FoundLake, identity: EventIdentity) -> Generator[OpenLake]:
    """The lake, open for an engine until the end of the block.

    Raises:
        ReconError: The engine is not installed, a file cannot be read, or its columns are not those of the mapping.
    """
    with _opened(settings, found) as (engine, columns, rows_of):
        spec = settings.mapping or default_mapping(columns, source="The lake", names_vary=False)
        require_known(columns, spec)
        if found.table is None:
            require_common_types(engine.types_in(found.files, spec.columns), spec)
        yield OpenLake(engine, lambda month: mapped_events(engine, rows_of(spec, month), spec), identity)


@contextmanager
def reading_lake() -> Generator[None]:
    """Report what fails while files are listed.

    Raises:
        ReconError: With what that means for a count.
    """
    try:
        yield
    except TableFilesError as error:
        raise ConfigurationError(
            error.what,
            changed=NOTHING_COUNTED,
            fix="Name the table: a Delta table by its folder, an Iceberg table like RECON_LAKE=iceberg://catalog/namespace"
            ".table. Write the rows of others as Parquet, with a program that knows their log.",
        ) from error
    except ConfigurationError as error:
        raise ConfigurationError(error.what, changed=NOTHING_COUNTED, fix=error.fix) from error
    except ReconError as error:
        raise ReconError(
            error.what,
            changed=NOTHING_COUNTED,
            fix="Check that the storage answers, and that the account that runs this may read it; then run this again.",
        ) from error


def _find_table(url: str) -> LakeTable | None:
    if is_iceberg(url):
        return iceberg_table(url)
    return delta_table(url) if is_delta(url) else None


@contextmanager
def _opened(settings: LakeSettings, found: FoundLake) -> Generator[_Opened]:
    """The engine, the columns of the lake, and what gives a table of the engine with the rows of a month or of all."""
    if found.table is None:
        with open_engine(settings.engine) as engine:
            rows = engine.read_parquet(found.files)
            yield engine, rows.columns, lambda _spec, _month: rows
        return
    table = found.table
    require_duckdb(settings.engine, str(table.version))
    with duckdb_engine(settings.engine.memory_mb) as engine:
        yield engine, table.schema.names, lambda spec, month: _stream(engine, table, spec, month)


def _stream(engine: DuckDB, table: LakeTable, spec: MappingSpec, month: BillingMonth | None) -> Any:
    columns = [name for name in table.schema.names if name in spec.columns or name in ARRIVAL]
    begins = spec.period_start
    is_time = begins is not None and begins.format == "iso"
    between = Between(begins.column, month.start, month.end) if month and begins is not None and is_time else None
    return engine.read_stream(lambda: table.stream(columns, between))
