"""Arrow's values as Python's, each as it was written; texts, numbers and times that repeat are created once."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from recon_pipeline.core.backfill.columns import Coded
from recon_pipeline.core.backfill.exact_json import Doubled
from recon_pipeline.core.backfill.instants import FineInstant, ShortFloat

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORT_FLOATS = {pa.float16(): 2.0**11, pa.float32(): 2.0**24}
"""With the first whole number that is also written for its neighbour."""
_INEXACT_INSIDE = frozenset({"halffloat", "float", "time64[ns]", "month_day_nano_interval", "pairs"})
"""Types that Arrow gives in another way than they were written, by themselves or inside of a list or an object."""
_REPEATING = frozenset(map(pa.type_for_alias, ("string", "large_string", "int16", "int32", "int64")))
"""Types whose values repeat in most columns."""


def python_values(column: Any) -> list[Any]:
    """The values; timestamps are converted here, because Arrow needs microseconds for each."""
    kind = column.type
    if kind in _SHORT_FLOATS:
        # As 0.1 was written, and not as the 0.10000000149011612 that its four bytes are among those of eight.
        return [None if text is None else _short_float(text, kind) for text in column.cast(pa.string()).to_pylist()]
    if kind == pa.time64("ns"):
        return column.cast(pa.string()).to_pylist()
    if kind in _REPEATING:
        encoded = column.dictionary_encode()
        return _coded(encoded, _plain_values(encoded.dictionary))
    if not pa.types.is_timestamp(kind):
        return _plain_values(column)
    epoch = _EPOCH if column.type.tz is not None else _EPOCH.replace(tzinfo=None)
    micros = column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).dictionary_encode()
    values = _coded(micros, _instants(epoch, micros.dictionary.to_pylist()))
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


def _coded(encoded: Any, distinct: list[Any]) -> Coded:
    """The values of an array that is encoded by a dictionary."""
    if not encoded.null_count:
        return Coded(distinct, encoded.indices.to_pylist())
    return Coded([*distinct, None], encoded.indices.fill_null(len(distinct)).to_pylist())


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
        return interval(*scalar.as_py())
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


def interval(months: int, days: int, nanoseconds: int) -> str:
    """As ISO 8601 writes it, since no length in seconds says it: months and days have several."""
    return f"P{months}M{days}DT{Decimal(nanoseconds).scaleb(-9).normalize():f}S"


def _instants(epoch: datetime, microseconds: list[int]) -> list[Any]:
    try:
        return [epoch + timedelta(0, 0, one) for one in microseconds]
    except OverflowError:
        return [_after(epoch, one) for one in microseconds]


def _after(epoch: datetime, microseconds: int) -> Any:
    try:
        return epoch + timedelta(microseconds=microseconds)
    except OverflowError:
        return f"{microseconds} microseconds since 1970"
