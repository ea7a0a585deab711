"""Why a counter has its value: one customer's keys, and all that log, ledger and subscriptions say of them.

Invariant: everything is read at one snapshot. Postgres sums; only a few rows are read for each key, however many events
it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar

from sqlalchemy import Connection

from recon_pipeline.core.quotas import Quota
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.parity.monitored import ParityOfKey, parity_of_key
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.records.explained_limit import Limit, limit_of
from recon_pipeline.store.records.seal_of_key import SealOfKey, seal_of_key

KEYS_SHOWN = 24
KEYS_EXPLAINED = 3
ROWS_SHOWN = 10
MOST_DAYS = 400
Whole = int | Decimal
"""A quantity: whole, unless the log's column is numeric and holds a fraction."""


@dataclass(frozen=True)
class Day:
    """Usage that happened on one UTC day."""

    day: date
    event_count: int
    usage_count: Whole
    running_total: Whole


@dataclass(frozen=True)
class Producer:
    """Who sent usage: a pattern of request ids, and a device ('' where metadata names none)."""

    pattern: str
    device: str
    event_count: int
    usage_count: Whole
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Burst:
    """A minute with several events."""

    minute: datetime
    event_count: int
    usage_count: Whole


@dataclass(frozen=True)
class Repair:
    """A row of the ledger."""

    repaired_at: datetime
    kind: str
    usage_count_before: int | None
    usage_count_after: int
    usage_delta: Whole
    usage_limit: int | None
    run_id: str


@dataclass(frozen=True)
class Crossing:
    """The day on which usage reached a limit, or None if it did not."""

    name: str
    units: int
    day: date | None


@dataclass(frozen=True)
class Sums:
    """The events of a key.

    Attributes:
        event_count: Events that count.
        usage_count: What they add up to.
        invalid_count: Never summed.
        repeated_count: Their identity was counted before.
        late_count: Arrived more than an hour after they happened, and were not imported.
        late_usage: What those add up to.
        latest_by_seconds: The longest that one was on its way that was not imported.
        imported_count: Happened before the customer's first event arrived, and arrived more than an hour later.
        outside_period_count: Happened outside of the period; they are summed.
    """

    event_count: int
    usage_count: Whole
    invalid_count: int
    repeated_count: int
    late_count: int
    late_usage: Whole
    latest_by_seconds: float | None
    imported_count: int
    outside_period_count: int
    first_at: datetime | None
    last_at: datetime | None


@dataclass(frozen=True)
class Key:
    """A key of the customer with its counter; None where there is no row.

    Attributes:
        left_alone_as: Why the latest run that compared it did not repair it: `doubtful`, `held`, `deferred`, `failed`,
            `untouched` or `drifted`; None if it matched, or was not compared since it changed.
        left_alone_because: The reason in a sentence, where there is one.
    """

    gateway_name: str
    usage_type: str
    period_start: datetime
    period_end: datetime
    usage_count: int | None
    updated_at: datetime | None
    left_alone_as: str | None
    left_alone_because: str | None

    @property
    def usage(self) -> MeteredUsage:
        """What is metered."""
        return MeteredUsage(self.gateway_name, self.usage_type)


@dataclass(frozen=True)
class Explanation:
    """All that is known of one key; lists are the first `ROWS_SHOWN`.

    `events_from` is `log`, or `log and archive`. `archive_error` says why an archive could not be read.
    """

    key: Key
    stripe: ParityOfKey | None
    seal: SealOfKey | None
    sums: Sums
    limit: Limit
    crossings: tuple[Crossing, ...]
    days: tuple[Day, ...]
    producers: tuple[Producer, ...]
    bursts: tuple[Burst, ...]
    repairs: tuple[Repair, ...]
    events_from: str = "log"
    archive_error: str | None = None

    @property
    def is_sealed_elsewhere(self) -> bool:
        """Whether the log has not the events that were sealed, and an archive has them."""
        if self.seal is None or self.seal.archived_folder is None:
            return False
        return (self.sums.usage_count, self.sums.event_count) != (self.seal.usage_count, self.seal.event_count)

    @property
    def difference(self) -> Whole:
        """Counter minus event sum."""
        return (self.key.usage_count or 0) - self.sums.usage_count


_Row = TypeVar("_Row", Key, Day, Producer, Burst, Repair, Sums)


def keys_of_customer(connection: Connection, customer: str, extent: Extent) -> tuple[Key, ...]:
    """The keys of a customer in an extent, the latest period first, at most `KEYS_SHOWN`."""
    parameters = {
        "customer": customer,
        "gateway_names": [usage.gateway_name for usage in extent.scope],
        "usage_types": [usage.usage_type for usage in extent.scope],
        "start": extent.start,
        "end": extent.end,
        "rows": KEYS_SHOWN,
    }
    return _rows(connection, "explain_keys", parameters, Key)


def explain(
    connection: Connection,
    customer: str,
    key: Key,
    tables: BillingTables,
    quotas: Mapping[str, Quota],
    paid_statuses: Sequence[str],
) -> Explanation:
    """Gather what is known of one key.

    Args:
        connection: In a REPEATABLE READ transaction.
        customer: By gateway_customer_id.
        key: One of the customer's.
        tables: How the tables are shaped.
        quotas: Limits by usage type.
        paid_statuses: With which a subscription is paid.
    """
    parameters = {
        "customer": customer,
        "gateway_name": key.gateway_name,
        "usage_type": key.usage_type,
        "period_start": key.period_start,
        "period_end": key.period_end,
        "rows": ROWS_SHOWN,
        "paid_statuses": list(paid_statuses),
        **tables.parameters,
    }
    found = connection.execute(statement("explain_usage", tables.parts), parameters | {"days": MOST_DAYS}).mappings()
    usage: dict[str, list[Mapping[Any, Any]]] = {"day": [], "minute": [], "producer": [], "all": []}
    for row in found:
        usage[row["kind"]].append(row)
    days = _made(usage["day"], Day)
    quota = quotas.get(key.usage_type)
    limits = {"free": quota.free, "paid": quota.paid} if quota else {}
    return Explanation(
        key=key,
        stripe=parity_of_key(connection, key.usage, customer, (key.period_start, key.period_end)),
        seal=seal_of_key(connection, tables, key.usage, customer, (key.period_start, key.period_end)),
        sums=_made(usage["all"], Sums)[0],
        limit=limit_of(connection, parameters, tables, quota),
        crossings=tuple(Crossing(name, units, _crossed(days, units)) for name, units in limits.items()),
        days=days,
        producers=_made(usage["producer"], Producer),
        bursts=_made(usage["minute"], Burst),
        repairs=_rows(connection, "explain_repairs", parameters, Repair),
    )


def _crossed(days: Sequence[Day], units: int) -> date | None:
    return next((day.day for day in days if day.running_total >= units), None)


def _rows(connection: Connection, name: str, parameters: Mapping[str, Any], made: type[_Row]) -> tuple[_Row, ...]:
    return _made(connection.execute(statement(name), parameters).mappings().all(), made)


def _made(rows: Sequence[Mapping[Any, Any]], made: type[_Row]) -> tuple[_Row, ...]:
    return tuple(made(**{field.name: _whole(row[field.name]) for field in fields(made)}) for row in rows)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) and value == value.to_integral_value() else value
