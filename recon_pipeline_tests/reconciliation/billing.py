"""A billing database as its application sees it: events recorded, counters read, things broken on purpose.

The values of one key differ only by customer and period; scope, gateway and usage type are the product's defaults.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row

GATEWAY, USAGE = "stripe", "remote_commands"
Period = tuple[datetime, datetime]
MAY: Period = (datetime(2025, 5, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC))
JUNE: Period = (datetime(2025, 6, 1, tzinfo=UTC), datetime(2025, 7, 1, tzinfo=UTC))
BIGINT_MAX = 2**63 - 1
ACCOUNTED = """
    select counter.gateway_customer_id, counter.usage_count as counted, coalesce(sum(repair.usage_delta), 0) as repaired
    from billing_usage_counters as counter
    left join recon.counter_repair as repair
        using (gateway_name, usage_type, gateway_customer_id, period_start, period_end)
    group by counter.id
    order by counter.gateway_customer_id
"""
_EVENT_SUMS = """
    select gateway_customer_id, sum(quantity)::bigint
    from billing_usage_events
    where quantity > 0 and period_start = %s and period_end = %s
    group by 1
"""
_LOG_CHECKSUM = """
    select count(*), md5(string_agg(event::text, '|' order by event::text)) from billing_usage_events as event
"""


@dataclass
class Billing:
    """The application's side of one database."""

    url: str
    connection: psycopg.Connection[Any]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def query(self, text: str, *values: Any) -> list[Any]:
        """The rows that a statement returns, if it returns any, as named tuples."""
        cursor = self.connection.execute(text.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, text: str, *values: Any) -> Any:
        """The one value that a statement returns."""
        ((value,),) = self.query(text, *values)
        return value

    @contextmanager
    def session(self, **options: Any) -> Iterator["Billing"]:
        """Another connection to the same database, in a transaction of its own unless `autocommit` is set."""
        with connected(self.url, **options) as connection:
            yield Billing(self.url, connection, self._numbers)

    def record(self, customer: str, quantity: int = 1, *, period: Period = MAY, request_id: str | None = None) -> bool:
        """Record usage through the application's recorder; returns whether it was new."""
        request_id = request_id or f"{id(self):x}-{next(self._numbers)}"
        return self.value(
            "select record_billing_usage_event(%s, %s, %s, %s, %s, %s, %s)",
            GATEWAY, customer, USAGE, request_id, *period, quantity,
        )  # fmt: skip

    def add_event(self, customer: str | None, quantity: object = 1, *, period: Period = MAY, **columns: object) -> None:
        """Put an event into the log and leave the counter as it is."""
        row = {"request_id": f"{id(self):x}-{next(self._numbers)}"} | columns
        self._insert("billing_usage_events", _key(customer, period) | {"quantity": quantity} | row)

    def add_counter(self, customer: str, usage_count: int, *, period: Period = MAY, **columns: object) -> None:
        """Put a counter beside the log, whatever the log says."""
        self._insert("billing_usage_counters", _key(customer, period) | {"usage_count": usage_count} | columns)

    def set_counter(self, customer: str, usage_count: int) -> None:
        """Set the counter of a customer in May to a value, as an incident would."""
        self.query(
            "update billing_usage_counters set usage_count = %s where gateway_customer_id = %s", usage_count, customer
        )

    def touch_counters(self) -> None:
        """Write every counter anew with the value that it has, as an increment and its reverse would."""
        self.query("update billing_usage_counters set updated_at = clock_timestamp()")

    def subscribe(self, customer: str, *, period: Period = MAY, status: str = "active") -> None:
        """Give a customer a subscription whose current period is this one."""
        row = {"gateway_name": GATEWAY, "gateway_customer_id": customer, "status": status}
        self._insert(
            "billing_subscriptions", row | {"current_period_start": period[0], "current_period_end": period[1]}
        )

    def counter(self, customer: str, *, period: Period = MAY) -> int | None:
        """The value of a counter, or None where there is no row."""
        return self.counters(period=period).get(customer)

    def counters(self, *, period: Period = MAY) -> dict[str, int]:
        """Counters of one period by customer."""
        return dict(
            self.query(
                "select gateway_customer_id, usage_count from billing_usage_counters "
                "where period_start = %s and period_end = %s order by 1",
                *period,
            )
        )

    def event_sums(self, *, period: Period = MAY) -> dict[str, int]:
        """Sums of the valid events of one period by customer; request ids are taken as unique."""
        return dict(self.query(_EVENT_SUMS, *period))

    def ledger(
        self, columns: str = "gateway_customer_id, kind, usage_count_before, usage_count_after"
    ) -> list[tuple[Any, ...]]:
        """Rows of the ledger in the order in which they were written."""
        return list(map(tuple, self.query(f"select {columns} from recon.counter_repair order by id")))

    def outcomes(self) -> dict[str, str | None]:
        """What became of each drifted key of the latest run, by customer."""
        return dict(
            self.query(
                "select drift.gateway_customer_id, "
                "case when outcome is null and repair.drift_id is not null then 'repaired' else outcome end "
                "from recon.counter_drift as drift "
                "left join recon.counter_repair as repair on repair.drift_id = drift.id "
                "where drift.run_id = (select run_id from recon.reconciliation_run order by started_at desc limit 1)"
            )
        )

    def log_checksum(self) -> tuple[int, str]:
        """Equal exactly if every event is the same to the last byte."""
        return tuple(self.query(_LOG_CHECKSUM)[0])

    def _insert(self, table: str, row: Mapping[str, object]) -> None:
        statement = sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(sql.Placeholder() * len(row)),
        )
        self.connection.execute(statement, list(row.values()))


def connected(url: str, **options: Any) -> psycopg.Connection[Any]:
    """A connection whose rows are named tuples."""
    # Nothing is prepared on the server: a migration may give a column another type between two calls.
    return psycopg.connect(url, row_factory=namedtuple_row, prepare_threshold=None, **options)


def customers(count: int, *, prefix: str = "customer") -> Sequence[str]:
    """Names that sort as they are numbered."""
    return [f"{prefix}_{number:04d}" for number in range(count)]


def in_month(period: Period, days: int) -> Period:
    """The period of some days that starts with another one."""
    return period[0], period[0] + timedelta(days=days)


def _key(customer: str | None, period: Period) -> dict[str, object]:
    return {
        "gateway_name": GATEWAY,
        "gateway_customer_id": customer,
        "usage_type": USAGE,
        "period_start": period[0],
        "period_end": period[1],
    }
