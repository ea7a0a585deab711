"""A Delta table, by its folder; deltalake reads it, as its log says."""

from typing import Any

import fsspec
import pyarrow as pa

from recon_pipeline.lake.engine import not_installed
from recon_pipeline.lake.files import FileRead
from recon_pipeline.lake.tables import Between, LakeTable, TableVersion
from recon_pipeline.sources.names import shown_source


def is_delta(url: str) -> bool:
    """Whether a URL or path is the folder of a Delta table."""
    protocol = fsspec.core.split_protocol(url)[0] or "file"
    if protocol in ("http", "https") or protocol not in fsspec.available_protocols():
        return False
    filesystem, path = fsspec.core.url_to_fs(url)
    return filesystem.isdir(f"{path.rstrip('/')}/_delta_log")


def delta_table(url: str) -> LakeTable:
    """The newest version of a Delta table.

    Raises:
        ConfigurationError: deltalake is not installed.
    """
    try:
        import deltalake  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise not_installed("deltalake", "delta", error) from error
    table = deltalake.DeltaTable(url)

    actions: Any = pa.table(table.get_add_actions(flatten=True))
    sizes = zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True)
    folder = shown_source(url).rstrip("/")
    files = [FileRead(f"{folder}/{path}", size, "") for path, size in sorted(sizes)]

    def scan(schema: pa.Schema, between: Between | None) -> pa.RecordBatchReader:
        found: Any = table.scan(columns=schema.names, predicate=_predicate(between) if between else None)
        # Its own texts are of a type that Arrow cannot filter.
        return pa.RecordBatchReader.from_stream(found).cast(schema)

    version = TableVersion("Delta", str(table.metadata().id), table.version())
    arrow: Any = table.schema().to_arrow()
    return LakeTable(version, tuple(files), pa.schema(arrow), scan)


def _predicate(between: Between) -> str:
    name = '"' + between.column.replace('"', '""') + '"'
    return f"{name} >= '{between.start.isoformat()}' and {name} < '{between.end.isoformat()}'"
