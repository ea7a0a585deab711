"""Events as lines of COPY's text format, written by the reading thread: the other thread only sends them."""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

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

Name = tuple[object, ...]
"""What an event has in the columns of the identity, without its time."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_VERSION_4 = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT = bytes(byte & 0x3F | 0x80 for byte in range(256))
"""What RFC 9562 sets in the seventh and the ninth byte of a random UUID."""


def declare_identity(connection: Connection, identity: EventIdentity) -> None:
    """Let the rest of the transaction compare events by their identity."""
    connection.execute(_DECLARE_IDENTITY, {"identity_columns": ",".join(identity.columns)})


def staged_lines(first_ordinal: int, readings: Sequence[Reading], identity: EventIdentity) -> Sequence[str]:
    """The events among the readings, in the columns of `COPY_STAGED_EVENTS`.

    Args:
        first_ordinal: The number of the first reading within the batch.
        readings: Classified.
        identity: What names an event.
    """
    events = [
        (ordinal, *reading)
        for ordinal, reading in enumerate(readings, first_ordinal)
        if not reading.reasons and reading.period is not None and reading.event_timestamp is not None
    ]
    columns: list[list[Any]] = [[event[at] for event in events] for at in (0, *range(3, 11))]
    ordinals, gateway_names, customers, usage_types, request_ids, quantities, timestamps, periods, metadata = columns
    # An event has no created_at before it is inserted, and its time is compared as programs write it.
    further = {
        "usage_type": usage_types,
        "gateway_customer_id": customers,
        "period_start": [start for start, _ in periods],
        "period_end": [end for _, end in periods],
    }
    names = zip(
        gateway_names, request_ids, *(further[column] for column in identity.further if column in further), strict=True
    )
    are_first = _Timed().are_first(names, timestamps) if identity.has_times else _are_first(names)
    texts = (
        map(str, ordinals),
        _new_ids(len(events)),
        *map(_escaped, (gateway_names, customers, usage_types, request_ids, metadata)),
        map(str, quantities),
        map(_instants, periods),
        map(_instant, timestamps),
        ["t" if is_first else "f" for is_first in are_first],
    )
    return [f"{line}\n" for line in map("\t".join, zip(*texts, strict=True))]


def _are_first(names: Iterable[Name]) -> Iterator[bool]:
    """Whether each event is the first of its name."""
    seen: set[Name] = set()
    for name in names:
        yield name not in seen
        seen.add(name)


class _Timed:
    """The first events of each identity in a chunk, if a time that may be cut or rounded is part of it."""

    def __init__(self) -> None:
        self._exact: set[Name] = set()
        self._written: set[Name] = set()

    def are_first(self, names: Iterable[Name], timestamps: Iterable[datetime]) -> Iterator[bool]:
        """Whether each event is the first of its name and time."""
        return map(self._is_first, names, timestamps)

    def _is_first(self, name: Name, timestamp: datetime) -> bool:
        """Whether no earlier event is this one; then it is kept for later ones."""
        written = {(*name, time) for time in writings(timestamp)}
        exact = (*name, timestamp)
        if exact in self._written or not written.isdisjoint(self._exact):
            return False
        self._exact.add(exact)
        self._written |= written
        return True


def _new_ids(count: int) -> Sequence[str]:
    """Random UUIDs, all at once: Postgres asks the system for each of them, which takes longer than to copy its row."""
    ids = bytearray(secrets.token_bytes(16 * count))
    ids[6::16] = ids[6::16].translate(_VERSION_4)
    ids[8::16] = ids[8::16].translate(_VARIANT)
    digits = ids.hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def _escaped(texts: Sequence[str]) -> Sequence[str]:
    """Texts of a column as COPY takes them. Most columns have none that needs it, and are searched as a whole."""
    if not _needs_escape("".join(texts)):
        return texts
    return [text.translate(_ESCAPES) if _needs_escape(text) else text for text in texts]


def _needs_escape(text: str) -> bool:
    return "\\" in text or "\t" in text or "\n" in text or "\r" in text


@lru_cache(maxsize=10_000)
def _instants(period: Period) -> str:
    return "\t".join(map(_instant, period))


def _instant(instant: datetime) -> str:
    """ISO 8601, put together from parts that occur again and again: `isoformat` takes four times as long."""
    since = instant - _EPOCH
    return f"{_day(since.days)}T{_clock(since.seconds)}.{since.microseconds:06}+00:00"


@lru_cache(maxsize=10_000)
def _day(days: int) -> str:
    return (_EPOCH.date() + timedelta(days)).isoformat()


@lru_cache(maxsize=86_400)
def _clock(seconds: int) -> str:
    return f"{seconds // 3_600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
