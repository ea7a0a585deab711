"""The values with which `recon sql` prints a statement, and how psql takes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import RECENT_DAYS, Settings
from recon_pipeline.store.counters.usage_snapshot import MOST_KEYS
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.limits import limit_parameters
from recon_pipeline.store.log.tables import COUNTERS, EVENTS, SUBSCRIPTIONS
from recon_pipeline.store.sums.run import SAMPLE_ROWS

_ROW_LIMITS = ("rows", "most", "most_events_sampled", "sample_rows")
_BY_TYPE: Mapping[str, Any] = {
    "boolean": False,
    "integer": 0,
    "bigint": 0,
    "numeric": 0,
    "double precision": 0,
    "xid8": "0",
    "oid": 0,
    "uuid": "00000000-0000-0000-0000-000000000000",
    "jsonb": "[]",
    "pg_snapshot": "1:1:",
    "text": "",
}
"""What stands for a value that neither settings nor options give."""


@dataclass(frozen=True)
class SqlOptions:
    """What was asked for.

    Attributes:
        name: Of the statement.
        strategies: Parts that fill holes where several can.
        customers: By gateway_customer_id; none for every customer.
        month: Whose start and end are taken; None for the current one.
    """

    name: str
    strategies: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    month: BillingMonth | None = None


def values_of(
    binds: Mapping[str, str], settings: Settings, options: SqlOptions, tables: BillingTables | None
) -> dict[str, Any]:
    """A value for each bind: from the options, else from the settings, else one that fits its type."""
    usage = settings.scope[0]
    quota = settings.quotas.get(usage.usage_type)
    month = options.month or BillingMonth.containing(datetime.now(UTC))
    customer = options.customers[0] if options.customers else ""
    known: dict[str, Any] = {
        "gateway_name": usage.gateway_name,
        "usage_type": usage.usage_type,
        "gateway_names": [one.gateway_name for one in settings.scope],
        "usage_types": [one.usage_type for one in settings.scope],
        "start": month.start,
        "end": month.end,
        "period_start": month.start,
        "period_end": month.end,
        "first_start": month.start,
        "last_end": month.end,
        "partition": month.key,
        "partitions": [month.key],
        "first_partition": month.key,
        "last_partition": month.key,
        "every_customer": not options.customers,
        "customers": list(options.customers),
        "customer": customer,
        "gateway_customer_id": customer,
        "every_key": True,
        "table_names": [EVENTS, COUNTERS, SUBSCRIPTIONS],
        "action": "pause",
        "difference_kind": "missing",
        "kind": "sealed",
        "severity": "warn",
        "outcome": "failed",
        "mode": "full",
        "event_identity": list(settings.event_identity.columns),
        "identity_columns": ",".join(settings.event_identity.columns),
        **limit_parameters(quota, settings.paid_statuses, has_subscriptions=tables is None or tables.has_subscriptions),
        "refuses_negative": settings.refuses_negative,
        "end_is_in_key": tables is None or tables.end_is_in_key,
        "start_digits": 6 if tables is None else tables.start_digits,
        "end_digits": 6 if tables is None else tables.end_digits,
        "settle_seconds": settings.settle_seconds,
        "settled_below": None,
        "recent_days": RECENT_DAYS,
        "most_keys": MOST_KEYS,
        "time_column": "event_timestamp",
        "quantity_is_numeric": tables is not None and tables.quantity_is_numeric,
        "refuses_repetitions": tables is None or tables.refuses_repetitions,
        **dict.fromkeys(_ROW_LIMITS, SAMPLE_ROWS),
    }
    months = {"first": month.key, "last": month.key} if binds.get("first") == "text" else {}
    return {name: {**known, **months}.get(name, _of_type(its_type, month)) for name, its_type in binds.items()}


def _of_type(its_type: str, month: BillingMonth) -> Any:
    if its_type.endswith("[]"):
        return []
    return month.start if its_type == "timestamptz" else _BY_TYPE[its_type]


def literal(value: Any) -> str:
    """A value as it stands in SQL; its type is what the statement around it needs."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        elements: Sequence[Any] = value
        quoted = (str(one).replace("\\", "\\\\").replace('"', '\\"') for one in elements)
        value = "{" + ",".join(f'"{one}"' for one in quoted) + "}"
    return "'" + str(value).replace("'", "''") + "'"


def argument(value: str) -> str:
    r"""What `\set` takes as one argument."""
    if value.replace("-", "").isalnum():
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
