"""Events as lines of COPY's text format, written by the thread that reads: the other one only has to send them."""

import secrets
from collections.abc import Iterator, Sequence
from functools import lru_cache

from recon_pipeline.core.backfill.rows import Period, Reading
from recon_pipeline.store.postgres.statements import with_name

COPY_STAGED_EVENTS = with_name(
    "copy_staged_events",
    """
    copy pg_temp.staged_event (
        ordinal, id, gateway_name, gateway_customer_id, usage_type, request_id, metadata, quantity,
        period_start, period_end, event_timestamp, is_first
    ) from stdin
    """,
)

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def staged_lines(first_ordinal: int, readings: Sequence[Reading]) -> Iterator[str]:
    """The events among the readings, in the columns of `COPY_STAGED_EVENTS`.

    Args:
        first_ordinal: The number of the first reading within the batch.
        readings: Classified.
    """
    seen: set[tuple[str | None, str | None]] = set()
    for ordinal, (event_id, reading) in enumerate(zip(_new_ids(len(readings)), readings, strict=True), first_ordinal):
        _, reasons, gateway_name, customer, usage_type, request_id, quantity, timestamp, period, metadata = reading
        if reasons or period is None or timestamp is None:
            continue
        request = (gateway_name, request_id)
        is_first = "f" if request in seen else "t"
        seen.add(request)
        texts = _columns(gateway_name, customer, usage_type, request_id, metadata)
        yield f"{ordinal}\t{event_id}\t{texts}\t{quantity}\t{_instants(period)}\t{timestamp.isoformat()}\t{is_first}\n"


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
