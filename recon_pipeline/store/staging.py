"""Events as lines of COPY's text format, written by the thread that reads: the other one only has to send them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from recon_pipeline.core.backfill.rows import Period, Reading

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def staged_lines(first_ordinal: int, readings: Sequence[Reading]) -> Iterator[str]:
    """The events among the readings, in the columns of `copy_staged_events.sql`.

    Args:
        first_ordinal: The number of the first reading within the batch.
        readings: Judged.
    """
    seen: set[tuple[str | None, str | None]] = set()
    for ordinal, one in enumerate(readings, first_ordinal):
        if one.reasons or one.period is None or one.event_timestamp is None:
            continue
        request = (one.gateway_name, one.request_id)
        is_first = "f" if request in seen else "t"
        seen.add(request)
        texts = _columns(one.gateway_name, one.gateway_customer_id, one.usage_type, one.request_id, one.metadata)
        yield (
            f"{ordinal}\t{texts}\t{one.quantity}\t{_instants(one.period)}\t{one.event_timestamp.isoformat()}\t{is_first}\n"
        )


def _columns(*texts: str | None) -> str:
    line = "\t".join(map(str, texts))
    if "\\" not in line and "\n" not in line and "\r" not in line and line.count("\t") == len(texts) - 1:
        return line
    return "\t".join(str(text).translate(_ESCAPES) for text in texts)


@lru_cache(maxsize=10_000)
def _instants(period: Period) -> str:
    return "\t".join(instant.isoformat() for instant in period)
