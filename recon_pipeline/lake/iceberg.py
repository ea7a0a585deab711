"""An Iceberg table, by catalog and name; pyiceberg reads it, with the catalog that it is configured for."""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from recon_pipeline.lake.engine import not_installed
from recon_pipeline.lake.files import FileRead, uncountable
from recon_pipeline.lake.tables import Between, LakeTable, TableVersion
from recon_pipeline.sources.names import shown_source

_URL = re.compile(r"iceberg://(?P<catalog>[^/]+)/(?P<name>[^/]+\.[^/.]+)")
_WRITE = "Write it like RECON_LAKE=iceberg://catalog/namespace.table."


def is_iceberg(url: str) -> bool:
    """Whether a URL is to name a table of a catalog."""
    return url.startswith("iceberg:")


def iceberg_table(url: str) -> LakeTable:
    """The newest snapshot of an Iceberg table.

    Raises:
        ConfigurationError: pyiceberg is not installed, or there is no such table, or nothing was written to it.
    """
    named = _URL.fullmatch(url)
    if named is None:
        raise uncountable(f"RECON_LAKE is {shown_source(url)}, which names no table of a catalog.", fix=_WRITE)
    table = _loaded(named["catalog"], named["name"])
    snapshot = table.current_snapshot()
    if snapshot is None:
        raise uncountable(
            f"The table {named['name']} of the catalog {named['catalog']} has no snapshot: nothing was written to it.",
            fix="Count it when it has events.",
        )
    files = {
        FileRead(one.file_path, one.file_size_in_bytes, "")
        for task in table.scan().plan_files()
        for one in (task.file, *task.delete_files)
    }

    def scan(schema: pa.Schema, between: Between | None) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, _batches(table, schema, between))

    from pyiceberg.io.pyarrow import schema_to_pyarrow  # noqa: PLC0415 - an extra

    version = TableVersion("Iceberg", str(table.metadata.table_uuid), snapshot.snapshot_id)
    schema = schema_to_pyarrow(table.schema(), include_field_ids=False)
    return LakeTable(version, tuple(sorted(files, key=lambda one: one.name)), schema, scan)


def _loaded(catalog: str, name: str) -> Any:
    try:
        from pyiceberg.catalog import load_catalog  # noqa: PLC0415 - an extra
        from pyiceberg.exceptions import NoSuchTableError  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise not_installed("pyiceberg", "iceberg", error) from error
    try:
        opened = load_catalog(catalog)
    except ValueError as error:
        raise uncountable(
            f"pyiceberg cannot open the catalog {catalog}: {error}",
            fix="Describe the catalog as pyiceberg documents, in ~/.pyiceberg.yaml or in variables like "
            f"PYICEBERG_CATALOG__{catalog.upper()}__URI, where this runs.",
        ) from error
    try:
        return opened.load_table(name)
    except NoSuchTableError as error:
        raise uncountable(f"The catalog {catalog} has no table {name}.", fix=_WRITE) from error


def _batches(table: Any, schema: pa.Schema, between: Between | None) -> Iterator[pa.RecordBatch]:
    from pyiceberg.expressions import AlwaysTrue, And, GreaterThanOrEqual, LessThan  # noqa: PLC0415 - an extra
    from pyiceberg.io.pyarrow import ArrowScan  # noqa: PLC0415 - an extra

    rows: Any = AlwaysTrue()
    if between is not None:
        start, end = between.start.isoformat(), between.end.isoformat()
        parts: Any = (GreaterThanOrEqual, LessThan)  # whose arguments pyright does not see
        rows = And(*(part(between.column, time) for part, time in zip(parts, (start, end), strict=True)))
    found = table.scan(row_filter=rows, selected_fields=tuple(schema.names))
    # File by file: of files that it is given together, pyiceberg holds all rows in memory.
    for task in found.plan_files():
        scan = ArrowScan(table.metadata, table.io, found.projection(), found.row_filter)
        for batch in scan.to_record_batches([task]):
            yield batch.select(schema.names).cast(schema)
