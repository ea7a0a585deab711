"""Lakes as other programs write them, and a model of what their events add up to."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.lake.engine import Engine
from recon_pipeline.lake.sums import event_sums
from recon_pipeline.sources.finding import find_files

MAY, JUNE = datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)
INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Event:
    """A row of a lake."""

    request_id: str | None
    quantity: Any
    gateway_customer_id: str | None = "cus_a"
    event_timestamp: datetime | None = datetime(2025, 5, 5, tzinfo=UTC)
    created_at: datetime | None = datetime(2025, 5, 5, tzinfo=UTC)
    period_start: datetime = MAY
    period_end: datetime | None = JUNE
    gateway_name: str = "stripe"
    usage_type: str = "remote_commands"


def table(events: Sequence[Event], quantity: pa.DataType | None = None) -> pa.Table:
    """As Arrow."""
    types = {name: INSTANT for name in ("event_timestamp", "created_at", "period_start", "period_end")} | {
        "quantity": quantity or pa.int64()
    }
    return pa.table(
        {
            one.name: pa.array([getattr(event, one.name) for event in events], types.get(one.name, pa.string()))
            for one in fields(Event)
        }
    )


def write(folder: Path, events: Sequence[Event], quantity: pa.DataType | None = None, *, files: int = 1) -> Path:
    """Parquet files in a folder, the events spread over them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        pq.write_table(table(events[number::files], quantity), folder / f"part-{number}.parquet")
    return folder


@dataclass
class KeySum:
    """What the events of a key add up to."""

    event_count: int = 0
    usage: Decimal = Decimal(0)
    credit: Decimal = Decimal(0)
    invalid_count: int = 0
    dedupe_count: int = 0
    negative_count: int = 0
    outside_period_count: int = 0


def model(events: Iterable[Event]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The event sums by key, one event after the other."""
    found: dict[tuple[Any, ...], KeySum] = {}
    seen: set[Any] = set()
    least = datetime.min.replace(tzinfo=UTC)
    with localcontext(prec=200):
        for event in sorted(events, key=lambda one: (one.created_at or least, *_ties(one))):
            customer, end = event.gateway_customer_id, event.period_end
            has_key = customer is not None and len(customer.encode()) <= 1_000 and end is not None
            key = (customer if has_key else "", event.period_start, end or event.period_start)
            of_key = found.setdefault(key, KeySum())
            time = event.event_timestamp
            of_key.outside_period_count += bool(
                time is not None and (time < event.period_start or (end is not None and time >= end))
            )
            number = None if event.quantity is None else Decimal(event.quantity)
            identity = (event.gateway_name, event.request_id)
            if number is None or not number.is_finite() or not has_key or end is None or end <= event.period_start:
                of_key.invalid_count += 1
            elif event.request_id is not None and identity in seen:
                of_key.dedupe_count += 1
            else:
                seen.add(identity)
                of_key.event_count += 1
                of_key.usage += number
                of_key.credit += min(number, Decimal(0))
                of_key.negative_count += number < 0
    return {key: asdict(one) for key, one in found.items()}


def sums_by(
    engine: Engine,
    lake: Path,
    identity: EventIdentity | None = EventIdentity(),  # noqa: B008
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The event sums by key, by an engine."""
    sums = event_sums(engine, engine.read_parquet(find_files(str(lake))), identity)
    with engine.run(sums.table) as batches:
        rows = batches.read_all().to_pylist()
    names = ("event_count", "invalid_count", "dedupe_count", "negative_count", "outside_period_count")
    assert all(row["unread_count"] == 0 for row in rows)
    return {
        (row["gateway_customer_id"], row["period_start"], row["period_end"]): {
            **{name: row[name] for name in names},
            "usage": sums.usage(row),
            "credit": sums.credit(row),
        }
        for row in rows
    }


def _ties(event: Event) -> tuple[Any, ...]:
    """Nulls first, then time, key and quantity."""
    values = (event.event_timestamp, event.gateway_customer_id, event.period_start, event.period_end, event.quantity)
    return tuple((value is not None, value) if value is not None else (False,) for value in values)
