"""Rows of Parquet, ORC and Arrow files, column by column, in pieces that are bounded in rows and in bytes."""

import struct
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

from recon_pipeline.core.backfill.columns import Columns
from recon_pipeline.sources.arrow_values import interval, python_values
from recon_pipeline.sources.delimited import unusable_header
from recon_pipeline.sources.finding import SourceFile

_BATCH_ROWS = 1_000
"""Rows whose size is known only when they are read: values that repeat are stored once."""
_BATCH_BYTES = 2**22
"""Of a batch of Parquet, according to its metadata."""


def columnar_rows(
    file: SourceFile, stream: Any, reader: str, *, piece_rows: int, piece_bytes: int
) -> tuple[tuple[str, ...], int, Iterator[Columns]]:
    """The columns, how many rows there are, and the rows.

    Args:
        file: To name it in errors.
        stream: Of the whole file, to be read in any order.
        reader: `parquet`, `orc` or `arrow`.
        piece_rows: How many rows are handed on at once.
        piece_bytes: How many bytes at most, unless a single batch is larger.
    """
    names, total, batches = _OPEN[reader](stream, min(_BATCH_ROWS, piece_rows))
    columns = tuple(names)
    if len(set(columns)) != len(columns):
        raise unusable_header(file, "two of its columns have the same name")
    return columns, total, _pieces(columns, batches, piece_rows, piece_bytes)


def _parquet(stream: Any, batch_rows: int) -> tuple[list[str], int, Iterator[Any]]:
    parquet = pq.ParquetFile(stream, buffer_size=2**20)
    columns = [parquet.schema.column(at) for at in range(len(parquet.schema))]
    intervals = [column.path for column in columns if column.converted_type == "INTERVAL"]

    def batches() -> Iterator[Any]:
        # Group by group: an iterator over several keeps all that it has read until its end, which is the whole file.
        for group in range(parquet.num_row_groups):
            found = parquet.metadata.row_group(group)
            fitting = max(1, _BATCH_BYTES * found.num_rows // max(1, found.total_byte_size))
            file = _that_reaches(parquet, stream, group)
            for batch in file.iter_batches(min(batch_rows, fitting), [group]):
                yield _with_intervals(batch, intervals)
            yield None

    return parquet.schema_arrow.names, parquet.metadata.num_rows, batches()


def _with_intervals(batch: Any, names: list[str]) -> Any:
    """The batch, with Parquet's intervals as texts: Arrow gives the twelve bytes of months, days and milliseconds."""
    for name in {*names} & {*batch.schema.names}:
        parts = [None if one is None else struct.unpack("<3I", one) for one in batch.column(name).to_pylist()]
        texts = [None if one is None else interval(one[0], one[1], one[2] * 1_000_000) for one in parts]
        batch = batch.set_column(batch.schema.get_field_index(name), name, pa.array(texts, pa.string()))
    return batch


def _that_reaches(parquet: pq.ParquetFile, stream: Any, group: int) -> pq.ParquetFile:
    """The file, opened so that Arrow reads all times of a group.

    Spark, Hive and Impala write times as INT96, which Arrow reads as nanoseconds; these end in 2262, and Arrow makes
    other years of what is after that (9999-12-31) or before 1677. Such a group is read to the microsecond.
    """
    columns = [parquet.schema.column(at) for at in range(len(parquet.schema))]
    old = [column.path for column in columns if column.physical_type == "INT96"]
    if not old:
        return parquet
    coarse = pq.ParquetFile(stream, buffer_size=2**20, coerce_int96_timestamp_unit="us")
    whole = coarse.read_row_group(group, columns=old)
    fits = parquet.read_row_group(group, columns=old).cast(whole.schema, safe=False).equals(whole)
    return parquet if fits else coarse


def _orc(stream: Any, batch_rows: int) -> tuple[list[str], int, Iterator[Any]]:
    file = orc.ORCFile(stream)
    stripes = (file.read_stripe(number) for number in range(file.nstripes))
    return file.schema.names, file.nrows, (one for stripe in stripes for one in _sliced(stripe, batch_rows))


def _arrow(stream: Any, batch_rows: int) -> tuple[list[str], int, Iterator[Any]]:
    file = pa.ipc.open_file(stream)
    total = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    batches = map(file.get_batch, range(file.num_record_batches))
    return file.schema.names, total, (one for batch in batches for one in _sliced(batch, batch_rows))


_OPEN = {"parquet": _parquet, "orc": _orc, "arrow": _arrow}


def _sliced(batch: Any, rows: int) -> Iterator[Any]:
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _pieces(columns: tuple[str, ...], batches: Iterator[Any], rows: int, most_bytes: int) -> Iterator[Columns]:
    waiting: list[Any] = []
    count = size = 0
    for batch in batches:
        if batch is not None:
            if count + batch.num_rows > rows:
                yield _columns(columns, waiting)
                waiting, count, size = [], 0, 0
            waiting.append(batch)
            count += batch.num_rows
            size += batch.nbytes
        if waiting and (batch is None or count >= rows or size >= most_bytes):
            yield _columns(columns, waiting)
            waiting, count, size = [], 0, 0
    if waiting:
        yield _columns(columns, waiting)


def _columns(names: tuple[str, ...], batches: list[Any]) -> Columns:
    table = pa.Table.from_batches(batches).combine_chunks()
    return Columns({name: python_values(_one(table.column(at))) for at, name in enumerate(names)})


def _one(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
