"""Events as lines of COPY's text format, written by the reading thread: the other thread only sends them."""

import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection

from recon_pipeline.core.backfill.cut_times import writings
from recon_pipeline.core.backfill.rows import Period, Reading
from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.store.postgres.statements import labelled, with_name

COPY_STAGED_EVENTS = with_name(
    "copy_staged_events",
    """
    copy pg_temp.staged_event (
        ordinal, id, gateway_name, gateway_customer_id, usage_type, request_id, metadata, quantity,
        period_start, period_end, event_timestamp, is_first
    ) from stdin
    """,
)

# Gives the event identity to the statements that take no values.
# Invariant: ends with the transaction.
# Binds: identity_columns text
_DECLARE_IDENTITY = labelled("declare_identity", "select set_config('recon.event_identity', :identity_columns, true)")

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def declare_identity(connection: Connection, identity: EventIdentity) -> None:
    """Let the rest of the transaction compare events by their identity."""
    connection.execute(_DECLARE_IDENTITY, {"identity_columns": ",".join(identity.columns)})


def staged_lines(first_ordinal: int, readings: Sequence[Reading], identity: EventIdentity) -> Iterator[str]:
    """The events among the readings, in the columns of `COPY_STAGED_EVENTS`.

    Args:
        first_ordinal: The number of the first reading within the batch.
        readings: Classified.
        identity: What names an event.
    """
    seen: set[tuple[object, ...]] = set()
    timed = _Timed() if identity.has_times else None
    for ordinal, (event_id, reading) in enumerate(zip(_new_ids(len(readings)), readings, strict=True), first_ordinal):
        _, reasons, gateway_name, customer, usage_type, request_id, quantity, timestamp, period, metadata = reading
        if reasons or period is None or timestamp is None:
            continue
        named_by = (gateway_name, request_id)
        if not identity.is_default:
            named_by += _further(reading, period, identity)
        if timed is not None:
            is_first = "t" if timed.is_first(named_by, timestamp) else "f"
        else:
            is_first = "f" if named_by in seen else "t"
            seen.add(named_by)
        texts = _columns(gateway_name, customer, usage_type, request_id, metadata)
        yield f"{ordinal}\t{event_id}\t{texts}\t{quantity}\t{_instants(period)}\t{timestamp.isoformat()}\t{is_first}\n"


class _Timed:
    """The first events of each identity in a chunk, if a time that may be cut or rounded is part of it."""

    def __init__(self) -> None:
        self._exact: set[tuple[object, ...]] = set()
        self._written: set[tuple[object, ...]] = set()

    def is_first(self, named_by: tuple[object, ...], timestamp: datetime) -> bool:
        """Whether no earlier event is this one; then it is kept for later ones."""
        written = {(*named_by, time) for time in writings(timestamp)}
        exact = (*named_by, timestamp)
        if exact in self._written or not written.isdisjoint(self._exact):
            return False
        self._exact.add(exact)
        self._written |= written
        return True


def _further(reading: Reading, period: Period, identity: EventIdentity) -> tuple[object, ...]:
    """The identity of an event beside gateway, request id and time; created_at is the same for all inserted now."""
    known = {
        "usage_type": reading.usage_type,
        "gateway_customer_id": reading.gateway_customer_id,
        "period_start": period[0],
        "period_end": period[1],
    }
    return tuple(known.get(column) for column in identity.further)


def _new_ids(count: int) -> Iterator[str]:
    """Random UUIDs, all at once: Postgres asks the system for each of them, which takes longer than to copy its row."""
    digits = secrets.token_hex(16 * count)
    for start in range(0, len(digits), 32):
        yield f"{digits[start : start + 12]}4{digits[start + 13 : start + 16]}a{digits[start + 17 : start + 32]}"


def _columns(*texts: str | None) -> str:
    gateway_name, customer, usage_type, request_id, metadata = texts
    line = f"{gateway_name}\t{customer}\t{usage_type}\t{request_id}\t{metadata}"
    if "\\" not in line and "\n" not in line and "\r" not in line and line.count("\t") == len(texts) - 1:
        return line
    return "\t".join(str(text).translate(_ESCAPES) for text in texts)


@lru_cache(maxsize=10_000)
def _instants(period: Period) -> str:
    return "\t".join(instant.isoformat() for instant in period)
