"""One row of an export read as an event, or told with every reason why it is none.

Invariant: the same row gives the same event whenever and from wherever it is read, so that the log's own rule (a
request id counts once) makes a second insert harmless. Plain tuples with names, since there are millions of them.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

from recon_pipeline.core.backfill.instants import UnreadableValueError, instant_reader, shown
from recon_pipeline.core.backfill.mapping import OWN_PREFIX, MappingSpec, TextField
from recon_pipeline.core.backfill.quantities import QuantityRange, quantity_reader
from recon_pipeline.core.scope import MeteredUsage

REQUEST_NAMESPACE = uuid.UUID("6b1fd3b4-5c0a-5d0b-9d7b-0c4b3f8f2f60")
"""Of request ids that are made from a primary key. Changing it would count every such row once more."""

ORIGIN_KEY = "recon_backfill"
"""The entry of an event's `metadata` that names batch, source and line."""

Row = Mapping[str, Any]
Period = tuple[datetime, datetime]


class Unreadable(NamedTuple):
    """A piece of a source that is no row: its text as it stands, and why."""

    text: str
    reason: str


class SourceRows(NamedTuple):
    """A piece of a source, in order.

    Attributes:
        source: Its name for a person, without anything secret.
        columns: Of every row; empty where each row names its own.
        rows: Line (or row) number and row.
        done: Share of the whole source that is read, 0 to 1, or None where that is unknown.
    """

    source: str
    columns: tuple[str, ...]
    rows: list[tuple[int, Row | Unreadable]]
    done: float | None


class Reading(NamedTuple):
    """What a row says; it is an event if there are no reasons against it.

    Attributes:
        source: Where it comes from.
        line: Line in a text file, row number elsewhere.
        row: As it was read.
        reasons: Why it is refused.
        period: None where columns do not give it and it is still to be found.
    """

    source: str
    line: int
    row: Row | Unreadable
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
        quantity_range: What the log can hold.
        scope: The metered usages that are reconciled; others are refused.
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
        self._source = source
        self._scope = {(usage.gateway_name, usage.usage_type) for usage in scope}
        self._texts = tuple(
            (name, field)
            for name in ("gateway_name", "gateway_customer_id", "usage_type")
            if (field := getattr(spec, name))
        )
        self._quantity = quantity_reader(spec.quantity, quantity_range)
        self._timestamp = instant_reader(spec.event_timestamp)
        self._start, self._end = (
            None if field is None else instant_reader(field) for field in (spec.period_start, spec.period_end)
        )
        self._taken = spec.columns
        origin = json.dumps({"batch_id": batch_id, "source": source})
        self._origin = f'{{"{ORIGIN_KEY}": {origin[:-1]}, "line": '

    def read(self, line: int, row: Row | Unreadable) -> Reading:
        """The event that a row is, or the reasons why it is none."""
        if isinstance(row, Unreadable):
            return Reading(self._source, line, row, (row.reason,))
        reasons: list[str] = []
        gateway_name, customer, usage_type = (self._text(name, field, row, reasons) for name, field in self._texts)
        quantity = self._value("quantity", self._spec.quantity, self._quantity, row, reasons)
        timestamp = self._value("event_timestamp", self._spec.event_timestamp, self._timestamp, row, reasons)
        period = self._period(row, reasons)
        if gateway_name and usage_type and (gateway_name, usage_type) not in self._scope:
            reasons.append(f"{gateway_name}:{usage_type} is outside of RECON_SCOPE, so nothing would count it")
        request_id = self._request_id(row, (gateway_name, customer, usage_type), reasons)
        metadata = self._metadata(line, row, reasons)
        return Reading(
            self._source, line, row, tuple(reasons),
            gateway_name, customer, usage_type, request_id, quantity, timestamp, period, metadata,
        )  # fmt: skip

    def _text(self, name: str, field: TextField, row: Row, reasons: list[str]) -> str | None:
        if field.column is None:
            return field.value
        try:
            return identifier(row.get(field.column))
        except UnreadableValueError as error:
            reasons.append(f"{name}{field.label} {error}")
            return None

    def _value(self, name: str, field: Any, read: Callable[[Any], Any], row: Row, reasons: list[str]) -> Any:
        try:
            return read(field.value if field.column is None else row.get(field.column))
        except UnreadableValueError as error:
            reasons.append(f"{name}{field.label} {error}")
            return None

    def _period(self, row: Row, reasons: list[str]) -> Period | None:
        if self._start is None or self._end is None:
            return None
        spec = self._spec
        start = self._value("period_start", spec.period_start, self._start, row, reasons)
        end = self._value("period_end", spec.period_end, self._end, row, reasons)
        if start is None or end is None:
            return None
        if end <= start:
            reasons.append(f"the period does not end after it begins: {start.isoformat()} to {end.isoformat()}")
            return None
        return start, end

    def _request_id(self, row: Row, named: tuple[str | None, ...], reasons: list[str]) -> str | None:
        spec = self._spec
        try:
            if spec.request_id is not None and (given := row.get(str(spec.request_id.column))) not in (None, ""):
                return identifier(given)
            if not spec.primary_key:
                raise UnreadableValueError("is empty, and no primary_key is mapped to make one")
            key = [identifier(row.get(column)) for column in spec.primary_key]
        except UnreadableValueError as error:
            label = spec.request_id.label if spec.request_id is not None else ""
            made = f" (primary_key {', '.join(spec.primary_key)})" if spec.primary_key else label
            reasons.append(f"request_id{made} {error}")
            return None
        if None in named:
            return None  # why is told already
        return request_id_of(*map(str, named), primary_key=key)

    def _metadata(self, line: int, row: Row, reasons: list[str]) -> str | None:
        left = {
            name: value for name, value in row.items() if name not in self._taken and not name.startswith(OWN_PREFIX)
        }
        own = self._own_metadata(row, reasons)
        if own:
            left = {name: value for name, value in own.items() if name != ORIGIN_KEY} | left
        head = f"{self._origin}{line}}}"
        if not left:
            return f"{head}}}"
        try:
            text = json.dumps(left, default=_plain, allow_nan=False)
            if "\\u0000" in text or "\\ud" in text:
                _require_storable(left)
        except UnreadableValueError as error:
            reasons.append(f"metadata {error}")
            return None
        except (ValueError, TypeError, RecursionError):
            reasons.append("metadata has a value that JSON cannot hold (NaN, infinite, or nested too deeply)")
            return None
        return f"{head}, {text[1:]}"

    def _own_metadata(self, row: Row, reasons: list[str]) -> dict[str, Any]:
        column = self._spec.metadata
        given = None if column is None else row.get(column)
        if isinstance(given, str) and given:
            with suppress(ValueError, RecursionError):  # what is no JSON is no object either
                given = json.loads(given)
        if given in (None, ""):
            return {}
        if not isinstance(given, dict):
            reasons.append(f"metadata (column {column}) is no JSON object: {shown(given)}")
            return {}
        return given  # pyright: ignore[reportUnknownVariableType]


def request_id_of(gateway_name: str, customer: str, usage_type: str, *, primary_key: list[str]) -> str:
    """The request id of a row that has none: the same for the same row, whatever file it comes in."""
    name = json.dumps([gateway_name, customer, usage_type, *primary_key], ensure_ascii=False, separators=(",", ":"))
    return str(uuid.uuid5(REQUEST_NAMESPACE, name))


def identifier(value: Any) -> str:
    """A value as an identifier; a number or a UUID is one by its digits.

    Raises:
        UnreadableValueError: It is empty, not text, or holds what no identifier holds.
    """
    if type(value) is str:
        if value and value.isprintable() and value[0] != " " and value[-1] != " ":
            return value
        return _odd_identifier(value)
    if value is None:
        raise UnreadableValueError("is empty")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str, uuid.UUID, datetime)):
        raise UnreadableValueError(f"{shown(value)} is no text")
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (float, Decimal)):
        if value != value or value in (float("inf"), float("-inf")) or value != int(value) or abs(value) > 2**53:
            raise UnreadableValueError(f"{shown(value)} is a number with a fraction or too large to be exact")
        return str(int(value))
    return str(value)


def _odd_identifier(value: str) -> str:
    if not value.strip():
        raise UnreadableValueError("is empty")
    if value != value.strip():
        raise UnreadableValueError(f"{shown(value)} begins or ends with a space")
    _require_storable(value)
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in value):
        raise UnreadableValueError(f"{shown(value)} holds a control character")
    return value


def _require_storable(value: Any) -> None:
    """Refuse what Postgres cannot store in text: NUL, and halves of characters (a wrong encoding)."""
    for text in _texts_in(value):
        if "\0" in text:
            raise UnreadableValueError(f"{shown(text)} holds a NUL character, which Postgres cannot store")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UnreadableValueError(f"{shown(text)} is in another encoding than the mapping says (encoding:)")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _texts_in(name)
            yield from _texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts_in(inner)


def _plain(value: Any) -> Any:
    """What JSON has no word for, as text."""
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal) and value == value.to_integral_value() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def row_as_text(row: Row | Unreadable) -> str:
    """A row as JSON, to be kept, shown and read again; pure ASCII, so that nothing in it can be refused."""
    if isinstance(row, Unreadable):
        return json.dumps(row.text)
    try:
        return json.dumps(dict(row), default=_plain)
    except (ValueError, TypeError, RecursionError):
        return json.dumps({name: str(value)[:10_000] for name, value in row.items()})
