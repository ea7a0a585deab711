"""Reads rows of an export as events, or finds every reason why they are not events.

Invariant: the same row gives the same event, whenever and from whatever file it is read. So the log's unique key (a
request id counts once) makes a second insert safe. Named tuples, because there are millions of them.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from recon_pipeline.core.backfill.cells import Cells
from recon_pipeline.core.backfill.columns import Columns, Reasons, Row, Unreadable, reached, read_each
from recon_pipeline.core.backfill.fields import TextField
from recon_pipeline.core.backfill.identifiers import identifier, identifier_as_written, request_id_of
from recon_pipeline.core.backfill.instants import UnreadableValueError, instant_reader
from recon_pipeline.core.backfill.keys import key_reader
from recon_pipeline.core.backfill.mapping import MappingSpec
from recon_pipeline.core.backfill.metadata import MetadataWriter
from recon_pipeline.core.backfill.quantities import QuantityRange, quantity_reader
from recon_pipeline.core.scope import MeteredUsage

Period = tuple[datetime, datetime]

_Texts = Sequence[str | None]


class SourceRows(NamedTuple):
    """A piece of a source, in order.

    Attributes:
        source: Its name for a person, without secrets.
        columns: Of every row; empty where each row names its own.
        lines: Of each row: line in a text file, row number elsewhere.
        rows: As they were read.
        done: Share of the whole source that is read, 0 to 1, or None if unknown.
    """

    source: str
    columns: tuple[str, ...]
    lines: Sequence[int]
    rows: Sequence[Row | Unreadable]
    done: float | None


class Reading(NamedTuple):
    """A row that was read; it is an event if it has no reasons.

    Attributes:
        line: Line in a text file, row number elsewhere.
        reasons: Why it is rejected.
        period: None if no columns give it; then it must be found.
    """

    line: int
    reasons: tuple[str, ...]
    gateway_name: str | None = None
    gateway_customer_id: str | None = None
    usage_type: str | None = None
    request_id: str | None = None
    quantity: int | Decimal | None = None
    event_timestamp: datetime | None = None
    period: Period | None = None
    metadata: str | None = None


class RowReader:
    """Reads the rows of one source by a mapping.

    Args:
        spec: The mapping.
        source: The source's name, for `metadata`.
        batch_id: The batch, for `metadata`.
        quantity_range: What the log can store.
        scope: The metered usages that are reconciled; others are rejected.
    """

    def __init__(
        self,
        spec: MappingSpec,
        *,
        source: str,
        batch_id: str,
        quantity_range: QuantityRange,
        scope: tuple[MeteredUsage, ...],
    ) -> None:
        self._spec = spec
        self._cells = Cells(spec.nulls)
        self._scope = {(usage.gateway_name, usage.usage_type) for usage in scope}
        self._quantity = quantity_reader(spec.quantity, quantity_range)
        self._timestamp = instant_reader(spec.event_timestamp)
        self._start, self._end = (
            None if field is None else (field, instant_reader(field, of_event=False))
            for field in (spec.period_start, spec.period_end)
        )
        self._key_readers = [(column, key_reader(column, spec.event_timestamp)) for column in spec.primary_key]
        self._metadata = MetadataWriter(spec, source=source, batch_id=batch_id)

    def read(self, lines: Sequence[int], rows: Sequence[Row | Unreadable]) -> list[Reading]:
        """The events of rows, or the reasons why they are not events."""
        readable, unreadable = _parted(rows)
        reasons: Reasons = defaultdict(list)
        spec = self._spec
        gateway_names, customers, usage_types = (
            self._texts(name, field, readable, reasons)
            for name, field in (
                ("gateway_name", spec.gateway_name),
                ("gateway_customer_id", spec.gateway_customer_id),
                ("usage_type", spec.usage_type),
            )
        )
        quantities = self._values("quantity", spec.quantity, self._quantity, readable, reasons)
        timestamps = self._values("event_timestamp", spec.event_timestamp, self._timestamp, readable, reasons)
        periods = self._periods(readable, reasons)
        self._require_scope(gateway_names, usage_types, reasons)
        request_ids = self._request_ids(readable, (gateway_names, customers, usage_types), reasons)
        metadata = self._metadata.write(lines, readable, reasons)
        for column in (name for name in spec.skip_when if "." in name):
            # A row is no event if it is unknown whether it is to be skipped.
            read_each(lambda value: value, self._cells.of(readable, column), f"skip_when (column {column})", reasons)
        fields = (
            lines, [()] * len(lines), gateway_names, customers, usage_types, request_ids, quantities, timestamps,
            periods, metadata,
        )  # fmt: skip
        readings = list(map(Reading._make, zip(*fields, strict=True)))
        for index, found in reasons.items():
            readings[index] = readings[index]._replace(reasons=tuple(found))
        for index, one in unreadable.items():
            readings[index] = Reading(lines[index], (one.reason,))
        return readings

    def _texts(self, name: str, field: TextField, rows: Sequence[Row], reasons: Reasons) -> _Texts:
        if field.column is None:
            return [field.value] * len(rows)
        read = _identifier_reader(field)
        return read_each(read, self._cells.of(rows, field.column), f"{name}{field.label}", reasons)

    def _values(
        self, name: str, field: Any, read: Callable[[Any], Any], rows: Sequence[Row], reasons: Reasons
    ) -> list[Any]:
        values = [field.value] * len(rows) if field.column is None else self._cells.of(rows, field.column)
        return read_each(read, values, f"{name}{field.label}", reasons)

    def _periods(self, rows: Sequence[Row], reasons: Reasons) -> list[Period | None]:
        if self._start is None or self._end is None:
            return [None] * len(rows)
        given = [self._cells.of(rows, field.column) for field, _ in (self._start, self._end)]
        starts, ends = (
            read_each(_or_none(read), values, f"{name}{field.label}", reasons)
            for name, (field, read), values in zip(
                ("period_start", "period_end"), (self._start, self._end), given, strict=True
            )
        )
        # The period of a row without both bounds is found, as if none were mapped; a row without one of them is
        # rejected.
        for index, (start, end) in enumerate(zip(*given, strict=True)):
            if (start is None) != (end is None):
                place = f"period_start{self._start[0].label}" if start is None else f"period_end{self._end[0].label}"
                reasons[index].append(f"{place} is empty, and the other bound is not")
        pairs = [
            None if start is None or end is None else (start, end) for start, end in zip(starts, ends, strict=True)
        ]
        empty = {pair for pair in set(pairs) if pair is not None and pair[1] <= pair[0]}
        if empty:
            for index, pair in enumerate(pairs):
                if pair is not None and pair in empty:
                    bounds = f"{pair[0].isoformat()} to {pair[1].isoformat()}"
                    reasons[index].append(f"the period does not end after it begins: {bounds}")
        return [None if pair in empty else pair for pair in pairs]

    def _require_scope(self, gateway_names: _Texts, usage_types: _Texts, reasons: Reasons) -> None:
        usages = list(zip(gateway_names, usage_types, strict=True))
        outside = {usage for usage in set(usages) - self._scope if all(usage)}
        if outside:
            for index, usage in enumerate(usages):
                if usage in outside:
                    reasons[index].append(f"{usage[0]}:{usage[1]} is outside RECON_SCOPE, so nothing would count it")

    def _request_ids(self, rows: Sequence[Row], named: tuple[_Texts, ...], reasons: Reasons) -> _Texts:
        spec, count = self._spec, len(rows)
        own = spec.request_id
        given = [None] * count if own is None else self._cells.of(rows, str(own.column))
        read_own = identifier if own is None else _identifier_reader(own)
        lacking = [value is None or value == "" for value in given]
        label = own.label if own is not None else ""
        if not any(lacking):
            return read_each(read_own, given, f"request_id{label}", reasons)
        made = f" (primary_key {', '.join(spec.primary_key)})" if spec.primary_key else label
        keys = [(self._cells.of(rows, column), read_key) for column, read_key in self._key_readers]

        def read(index: int) -> str | None:
            try:
                if not lacking[index]:
                    return read_own(reached(given[index]))
                if not spec.primary_key:
                    raise UnreadableValueError("is empty, and no primary_key is mapped to make one")
                key = [read_key(reached(values[index])) for values, read_key in keys]
            except UnreadableValueError as error:
                place = made if lacking[index] else label
                raise UnreadableValueError(f"{place.strip()} {error}") from None
            names = [texts[index] for texts in named]
            # A missing name already has its reason.
            return None if None in names else request_id_of(*map(str, names), primary_key=key)

        return read_each(read, range(count), "request_id", reasons)


def _parted(rows: Sequence[Row | Unreadable]) -> tuple[Sequence[Row], dict[int, Unreadable]]:
    """All rows, with an empty one in place of each unreadable one; and the unreadable ones by their position."""
    if isinstance(rows, Columns):
        return rows, {}
    unreadable = {index: row for index, row in enumerate(rows) if isinstance(row, Unreadable)}
    return [{} if isinstance(row, Unreadable) else row for row in rows], unreadable


def _or_none(read: Callable[[Any], datetime]) -> Callable[[Any], datetime | None]:
    return lambda value: None if value is None else read(value)


def _identifier_reader(field: TextField) -> Callable[[Any], str]:
    return identifier_as_written if field.as_written else identifier
