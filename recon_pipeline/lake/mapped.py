"""The rows of a lake as events: its columns by the mapping of a backfill, in types that lose nothing.

Invariant: nothing is guessed or rounded. What a mapping may ask of rows of text, and Parquet has no need of, is refused
by name, never ignored.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.backfill.fields import UNIX_FORMATS, InstantField, QuantityField, TextField
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.files import NOTHING_COUNTED
from recon_pipeline.lake.sums import ARRIVAL

if TYPE_CHECKING:
    import ibis.expr.types as ir

_INSTANT = "timestamp('UTC', 6)"
UTC_NAMES = ("UTC", "Etc/UTC", "GMT")
"""Zones whose times are UTC's."""


def mapped_events(engine: Engine, rows: "ir.Table", spec: MappingSpec) -> "ir.Table":
    """The rows of a lake as events, with the columns of `ARRIVAL` that it has; `require_known` has passed the mapping.

    Raises:
        ConfigurationError: A column is of a type that is not read.
    """
    nulls = list(spec.nulls)
    found: dict[str, Any] = {
        name: _text(rows, name, field, nulls)
        for name, field in (
            ("gateway_name", spec.gateway_name),
            ("gateway_customer_id", spec.gateway_customer_id),
            ("usage_type", spec.usage_type),
            ("request_id", spec.request_id),
        )
        if field is not None
    }
    found["quantity"] = _quantity(rows, spec.quantity)
    for name, instant in (
        ("period_start", spec.period_start),
        ("period_end", spec.period_end),
        ("event_timestamp", spec.event_timestamp),
    ):
        if instant is not None:
            found[name] = _instant(engine, rows, name, instant)
    arrival = {name: rows[name] for name in ARRIVAL if name in rows.columns}
    return rows.select(**found, **arrival)


def of_month(events: "ir.Table", usage: MeteredUsage, month: BillingMonth) -> "ir.Table":
    """The events of one metered usage whose period begins in a month, without its columns, which are all alike."""
    table: Any = events
    found = table.filter(
        table.gateway_name == usage.gateway_name,
        table.usage_type == usage.usage_type,
        table.period_start >= month.start,
        table.period_start < month.end,
    )
    return found.drop("gateway_name", "usage_type")


def in_no_month(events: "ir.Table") -> "ir.Table":
    """How many events are in no month of any metered usage, since a name of it or the start of the period is null."""
    table: Any = events
    is_placed = table.gateway_name.notnull() & table.usage_type.notnull() & table.period_start.notnull()
    return table.aggregate(events=table.count(where=~is_placed))


def require_known(columns: Sequence[str], spec: MappingSpec) -> None:
    """Refuse a mapping that names columns that the lake does not have, or asks for what is not done with a lake.

    Raises:
        ConfigurationError: It does.
    """
    asked = {
        "primary_key": spec.request_id is None,
        "skip_when": bool(spec.skip_when),
        "period": spec.period_start is None or spec.period_end is None,
        "multiply, divide and round": spec.quantity.has_unit,
        "decimal and thousands": (spec.quantity.decimal, spec.quantity.thousands) != (None, None),
    }
    not_done = [name for name, is_asked in asked.items() if is_asked]
    if not_done:
        raise ConfigurationError(
            f"The mapping of the lake asks for what is not done with a lake: {'; '.join(not_done)}.",
            changed=NOTHING_COUNTED,
            fix="Name columns that hold it: request_id, quantity in units of the counters, period_start, period_end.",
        )
    missing = sorted(spec.columns - set(columns) - {spec.metadata})
    if missing:
        raise ConfigurationError(
            f"The lake has no column {', '.join(missing)}; it has {', '.join(sorted(columns)[:30])}.",
            changed=NOTHING_COUNTED,
            fix="Correct the file that RECON_LAKE_MAPPING names.",
        )


def _text(rows: Any, name: str, field: TextField, nulls: list[str]) -> Any:
    import ibis  # noqa: PLC0415 - an extra

    if field.column is None:
        return ibis.literal(field.value, "string")
    column = rows[field.column]
    if column.type().is_integer():
        return column.cast("string")
    _require(column.type().is_string(), name, field.column, column.type(), "text or whole numbers")
    return column.isin(nulls).ifelse(ibis.null("string"), column)


def _quantity(rows: Any, field: QuantityField) -> Any:
    import ibis  # noqa: PLC0415 - an extra

    if field.column is None:
        return ibis.literal(field.value, "int64")
    column = rows[field.column]
    kind = column.type()
    _require(kind.is_integer() or kind.is_decimal(), "quantity", field.column, kind, "whole numbers or decimals")
    if kind.is_unsigned_integer():
        column = column.cast("decimal(20, 0)")
    return column if field.default is None else column.fill_null(ibis.literal(field.default).cast(column.type()))


def _instant(engine: Engine, rows: Any, name: str, field: InstantField) -> Any:
    column = rows[field.column]
    kind = column.type()
    if field.format in UNIX_FORMATS:
        _require(kind.is_integer(), name, field.column, kind, f"whole numbers, as {field.format} says")
        return engine.since_1970(column.cast("int64"), UNIX_FORMATS[field.format]).cast(_INSTANT)
    _require(field.format == "iso" and (kind.is_timestamp() or kind.is_date()), name, field.column, kind, "times")
    if kind.is_date() or kind.timezone is None:
        # Engines are set to UTC, so that a time without a zone is one of UTC; of another zone it would be a guess.
        _require(
            field.zone in UTC_NAMES,
            name,
            field.column,
            kind,
            "times with a zone; or of UTC, if the mapping says zone: UTC",
        )
    return column.cast(_INSTANT)


def _require(is_so: bool, name: str, column: str, kind: Any, wanted: str) -> None:
    if not is_so:
        raise ConfigurationError(
            f"{name} is read from the column {column} of the lake, which is {kind}, and not {wanted}.",
            changed=NOTHING_COUNTED,
            fix="Write the column so with the program that writes the lake, or name another in the mapping.",
        )
