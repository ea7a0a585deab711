"""What the database adds to readings before they are events: their period, and whether the customer is known.

Invariant: only `core/backfill/periods.py` decides the period; this module reads the facts for it, of a whole chunk at a
time. What is known of a customer beyond counters is read once in a backfill, because later it may contain events that
this backfill inserted. All events of a customer are read only if counters and aggregates do not show the period.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from recon_pipeline.core.backfill.periods import History, covering, period_of
from recon_pipeline.core.backfill.placement import WritableMonths, placed
from recon_pipeline.core.backfill.reading import Readings
from recon_pipeline.core.backfill.rows import Period, Reading
from recon_pipeline.store.backfill.uncounted import UncountedPeriods, UsageOfCustomer
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.postgres.planning import look_up_each_by_index
from recon_pipeline.store.postgres.statements import labelled, statement

# Which customers a foreign key of the log would refuse, and the table that lacks them.
# Binds: customers text[]
_UNKNOWN_CUSTOMERS = labelled(
    "unknown_customers",
    """
    select customer, referenced from recon.unknown_customers(cast(:customers as text[]))
    """,
)
# The current periods of all subscriptions of some customers; null for one without an end, or with none at all.
# Index: billing_subscriptions by customer where there is one.
# Binds: customers text[]
_SUBSCRIBED_PERIODS = labelled(
    "subscribed_periods",
    """
    select gateway_name, gateway_customer_id,
        case when is_bounded then current_period_start end as period_start,
        case when is_bounded then current_period_end end as period_end
    from (
        select *,
            current_period_start < current_period_end
            and current_period_start >= '0001-01-02Z'
            and current_period_end < '9999-01-01Z' as is_bounded
        from billing_subscriptions
        where gateway_customer_id = any(:customers)
    ) as subscription
    """,
)

_KNOWN_CUSTOMERS = 200_000
_CUSTOMERS_AT_ONCE = 1_000
"""All events of so many customers are read in one statement."""

Customer = tuple[str, str]
"""A gateway and a customer."""


class Classifier:
    """Completes the readings of one backfill, chunk after chunk."""

    def __init__(self, tables: BillingTables, writable: WritableMonths) -> None:
        self._tables = tables
        self._writable = writable
        self._existing: set[str] = set()
        self._known: dict[Customer, dict[str, set[Period | None]]] = {}
        self._uncounted = UncountedPeriods(tables, writable.first)

    def classified(self, connection: Connection, piece: Readings) -> Sequence[Reading]:
        """The same readings with their periods, and with the reasons for missing periods and unknown customers."""
        readings = piece.readings
        unknown = self._unknown(connection, readings)
        at = now(connection)
        found: Mapping[int, Period | str] = {}
        if not piece.mapping.maps_period or any(reading.period is None for reading in readings):
            found = self._periods(connection, readings, piece.mapping.period.calendar_month)
        whole = placed(readings, found, self._writable, mapping=piece.mapping, now=at)
        if not unknown:
            return whole
        return [
            reading._replace(reasons=(*reading.reasons, unknown[reading.gateway_customer_id]))
            if reading.gateway_customer_id in unknown
            else reading
            for reading in whole
        ]

    def _periods(self, connection: Connection, readings: Sequence[Reading], zone: str) -> Mapping[int, Period | str]:
        """The period of each reading that could be an event, by its position, or why it has none."""
        look_up_each_by_index(connection)
        found: dict[int, Period | str] = {**_logged(connection, readings, self._tables)}
        times: defaultdict[UsageOfCustomer, list[tuple[int, datetime]]] = defaultdict(list)
        of_events: set[UsageOfCustomer] = set()
        for index, reading in enumerate(readings):
            _, reasons, gateway_name, customer, usage_type, _, _, timestamp, period, _ = reading
            if index not in found and gateway_name and customer and usage_type and timestamp and period is None:
                asked = gateway_name, customer, usage_type
                times[asked].append((index, timestamp))
                if not reasons:
                    of_events.add(asked)
        instants = {asked: [time for _, time in some] for asked, some in times.items()}
        counted = _counted(connection, instants)
        covered = {asked for asked, some in instants.items() if all(covering(counted[asked], time) for time in some)}
        lacking_aggregates = self._uncounted.not_in_aggregates(
            connection, {asked: instants[asked] for asked in covered & of_events}
        )
        histories = self._histories(connection, (times.keys() - covered) | {*lacking_aggregates})
        for asked, some in times.items():
            history = histories.get(asked) or History(own=self._uncounted.of(asked))
            for index, time in some:
                found[index] = period_of(time, counted[asked], history, zone)
        return found

    def _histories(
        self, connection: Connection, asked: Collection[UsageOfCustomer]
    ) -> Mapping[UsageOfCustomer, History]:
        """What is known of customers whose counters do not show the period."""
        customers = {(gateway_name, customer) for gateway_name, customer, _ in asked}
        if len(self._known) > _KNOWN_CUSTOMERS:
            self._known.clear()
        new = sorted(customers - self._known.keys())
        for first in range(0, len(new), _CUSTOMERS_AT_ONCE):
            self._learn(connection, new[first : first + _CUSTOMERS_AT_ONCE])
        subscribed = self._subscribed(connection, customers)
        return {
            one: History(
                own=self._known[one[:2]].get(one[2], ()),
                others={
                    period
                    for usage_type, periods in self._known[one[:2]].items()
                    if usage_type != one[2]
                    for period in periods
                },
                subscribed=subscribed.get(one[:2], ()),
            )
            for one in asked
        }

    def _learn(self, connection: Connection, customers: Sequence[Customer]) -> None:
        self._known |= {customer: {} for customer in customers}
        gateway_names, names = map(list, map(set, zip(*customers, strict=True)))
        rows = connection.execute(statement("known_periods"), {"gateway_names": gateway_names, "customers": names})
        for row in rows:
            known = self._known.get((row.gateway_name, row.gateway_customer_id))
            if known is not None:
                known.setdefault(row.usage_type, set()).add(_period(row))

    def _subscribed(
        self, connection: Connection, customers: Iterable[Customer]
    ) -> Mapping[Customer, Collection[Period | None]]:
        names = sorted({customer for _, customer in customers})
        if not (self._tables.has_subscriptions and names):
            return {}
        periods: defaultdict[Customer, set[Period | None]] = defaultdict(set)
        for row in connection.execute(_SUBSCRIBED_PERIODS, {"customers": names}):
            periods[row.gateway_name, row.gateway_customer_id].add(_period(row))
        return periods

    def _unknown(self, connection: Connection, readings: Sequence[Reading]) -> dict[str | None, str]:
        asked = {reading.gateway_customer_id for reading in readings if reading.gateway_customer_id} - self._existing
        if not asked:
            return {}
        rows = connection.execute(_UNKNOWN_CUSTOMERS, {"customers": list(asked)})
        unknown: dict[str | None, str] = {
            row.customer: f"{row.referenced} has no customer {row.customer!r}" for row in rows
        }
        if len(self._existing) > _KNOWN_CUSTOMERS:
            self._existing.clear()
        self._existing |= {customer for customer in asked if customer not in unknown}
        return unknown


def _logged(connection: Connection, readings: Sequence[Reading], tables: BillingTables) -> Mapping[int, Period]:
    """The periods of the readings that are in the log, by position."""
    asked = [
        (
            index,
            reading.gateway_name,
            reading.gateway_customer_id,
            reading.usage_type,
            reading.request_id,
            reading.event_timestamp,
        )
        for index, reading in enumerate(readings)
        if not reading.reasons and reading.period is None
    ]
    if not asked:
        return {}
    positions, *columns = map(list, zip(*asked, strict=True))
    names = ("gateway_names", "customers", "usage_types", "request_ids", "timestamps")
    rows = connection.execute(statement("logged_periods"), tables.parameters | dict(zip(names, columns, strict=True)))
    return {positions[row.ordinal - 1]: (row.period_start, row.period_end) for row in rows}


def _counted(
    connection: Connection, times: Mapping[UsageOfCustomer, Sequence[datetime]]
) -> Mapping[UsageOfCustomer, Collection[Period]]:
    """Periods of counters that contain a time between the first and the last."""
    counted: defaultdict[UsageOfCustomer, set[Period]] = defaultdict(set)
    if not times:
        return counted
    asked = list(times)
    gateway_names, customers, usage_types = map(list, zip(*asked, strict=True))
    given = {
        "gateway_names": gateway_names,
        "customers": customers,
        "usage_types": usage_types,
        "firsts": [min(times[one]) for one in asked],
        "lasts": [max(times[one]) for one in asked],
    }
    for row in connection.execute(statement("counted_periods"), given):
        counted[asked[row.ordinal - 1]].add((row.period_start, row.period_end))
    return counted


def _period(row: Row[Any]) -> Period | None:
    return None if row.period_start is None else (row.period_start, row.period_end)
