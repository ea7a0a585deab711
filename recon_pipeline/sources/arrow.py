"""Rows of Parquet, ORC and Arrow files, column by column, in pieces that are bounded in rows and in bytes."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq

from recon_pipeline.core.backfill.columns import Columns
from recon_pipeline.core.backfill.exact_json import Doubled
from recon_pipeline.core.backfill.instants import FineInstant, ShortFloat
from recon_pipeline.sources.delimited import unusable_header
from recon_pipeline.sources.finding import SourceFile

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BATCH_ROWS = 1_000
"""Rows whose size is known only when they are read: values that repeat are stored once."""
_SHORT_FLOATS = {pa.float16(): 2.0**11, pa.float32(): 2.0**24}
"""With the first whole number that is also written for its neighbour."""
_INEXACT_INSIDE = frozenset({"halffloat", "float", "time64[ns]", "month_day_nano_interval", "pairs"})
"""Types that Arrow gives in another way than they were written, by themselves or inside of a list or an object."""
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
        texts = [None if one is None else _interval(one[0], one[1], one[2] * 1_000_000) for one in parts]
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
    return Columns({name: _python_values(_one(table.column(at))) for at, name in enumerate(names)})


def _one(column: Any) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _python_values(column: Any) -> list[Any]:
    """The values; timestamps are converted here, because Arrow needs microseconds for each.

    Each instant is created once, because the bounds of periods repeat.
    """
    kind = column.type
    if kind in _SHORT_FLOATS:
        # As 0.1 was written, and not as the 0.10000000149011612 that its four bytes are among those of eight.
        return [None if text is None else _short_float(text, kind) for text in column.cast(pa.string()).to_pylist()]
    if kind == pa.time64("ns"):
        return column.cast(pa.string()).to_pylist()
    if not pa.types.is_timestamp(kind):
        return _plain_values(column)
    epoch = _EPOCH if column.type.tz is not None else _EPOCH.replace(tzinfo=None)
    micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).dictionary_encode()
    instants = [_after(epoch, one) for one in micros.dictionary.to_pylist()]
    values = [None if index is None else instants[index] for index in micros.indices.to_pylist()]
    try:
        column.cast(pa.timestamp("us", column.type.tz))
    except pa.ArrowInvalid:  # it has nanoseconds
        nanos = column.cast(pa.int64()).to_pylist()
        return [
            # Arrow has cut towards 1970.
            FineInstant.of(value - timedelta(microseconds=nano < 0), nano % 1_000)
            if isinstance(value, datetime) and nano % 1_000
            else value
            for value, nano in zip(values, nanos, strict=True)
        ]
    return values


def _plain_values(column: Any) -> list[Any]:
    inside = _types_in(column.type)
    try:
        if not inside.isdisjoint(_INEXACT_INSIDE):
            return [_python_value(one) for one in column]
        # A map is an object if its keys are texts.
        return column.to_pylist(maps_as_pydicts="strict" if "map" in inside else None)
    except (ArithmeticError, LookupError, ValueError):
        # Dates after 9999, times with nanoseconds, text that is no UTF-8, an object with a name twice.
        return [_python_value(one) for one in column]


def _types_in(kind: Any) -> set[str]:
    """The names of a type and of those that it contains; `pairs` is a map whose keys are no texts."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _types_in(kind.value_type)
    name = str(kind).partition("<")[0]
    found = {"pairs" if name == "map" and not pa.types.is_string(kind.key_type) else name}
    return found.union(*(_types_in(kind.field(at).type) for at in range(kind.num_fields)))


def _python_value(scalar: Any) -> Any:
    """A value, or its text if Python has none for it."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _python_value(scalar.value)
    if kind in _SHORT_FLOATS:
        return _short_float(scalar.cast(pa.string()).as_py(), kind)
    if kind == pa.time64("ns"):
        return scalar.cast(pa.string()).as_py()
    if kind == pa.month_day_nano_interval():
        return _interval(*scalar.as_py())
    if pa.types.is_map(kind):
        pairs = [(_python_value(pair[0]), _python_value(pair[1])) for pair in scalar.values]
        if not pa.types.is_string(kind.key_type):
            return pairs
        return dict(pairs) if len(dict(pairs)) == len(pairs) else Doubled(pairs)
    if pa.types.is_struct(kind):
        fields = [(kind.field(at).name, _python_value(scalar[at])) for at in range(kind.num_fields)]
        return dict(fields) if len(dict(fields)) == len(fields) else Doubled(fields)
    if pa.types.is_nested(kind) and getattr(scalar, "values", None) is not None:
        return [_python_value(one) for one in scalar.values]
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return scalar.as_buffer().to_pybytes().decode("utf-8", "surrogateescape")
    except (ArithmeticError, ValueError):
        with suppress(pa.ArrowException):
            return scalar.cast(pa.string()).as_py()
        return f"{scalar.type} that no clock shows"


def _short_float(text: str, kind: Any) -> float:
    value = float(text)
    return ShortFloat(text) if abs(value) >= _SHORT_FLOATS[kind] else value


def _interval(months: int, days: int, nanoseconds: int) -> str:
    """As ISO 8601 writes it, since no length in seconds says it: months and days have several."""
    return f"P{months}M{days}DT{Decimal(nanoseconds).scaleb(-9).normalize():f}S"


def _after(epoch: datetime, microseconds: int) -> Any:
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"{microseconds} microseconds since 1970"
