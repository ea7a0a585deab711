"""Periods that only the log knows, of customers who also have a counter at that time: nothing shows which is right.

Invariant: all of the log counts. In incremental mode, aggregates and newer events name such periods, month by month and
once in a backfill, and the log confirms each; so no customer's events are all read. In months without aggregates, and
in full mode, the caller reads the log itself. Months are read from the first that the backfill may write; an older
period is known only if a counter or an aggregate has it.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.backfill.rows import Period
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import look_up_by_index, look_up_each_by_index, plan_as_usual
from recon_pipeline.store.postgres.statements import statement

UsageOfCustomer = tuple[str, str, str]
"""A gateway, a customer and a usage type."""


class UncountedPeriods:
    """What the aggregates show of periods without a counter, read as months are asked for.

    Args:
        tables: How the tables are shaped.
        first: The first month in which an asked period can begin.
    """

    def __init__(self, tables: BillingTables, first: BillingMonth) -> None:
        self._tables = tables
        self._first = first
        self._read: dict[tuple[str, str], set[str]] = {}
        self._periods: defaultdict[UsageOfCustomer, set[Period]] = defaultdict(set)

    def of(self, asked: UsageOfCustomer) -> Collection[Period]:
        """Those of a customer and usage type, as far as they were read."""
        return self._periods.get(asked, ())

    def not_in_aggregates(
        self, connection: Connection, times: Mapping[UsageOfCustomer, Sequence[datetime]]
    ) -> Collection[UsageOfCustomer]:
        """Read what the aggregates show of some times.

        Args:
            connection: In a transaction; afterwards each row is looked up by index.
            times: Of events, by customer and usage type.

        Returns:
            Those of whom only the log itself shows it.
        """
        if not self._tables.has_ingest_xid:
            return times.keys()
        asked: defaultdict[tuple[str, str], dict[UsageOfCustomer, Sequence[datetime]]] = defaultdict(dict)
        for one, some in times.items():
            asked[one[0], one[2]][one] = some
        lacking_aggregates: list[UsageOfCustomer] = []
        plan_as_usual(connection)
        look_up_by_index(connection)
        for usage, customers in asked.items():
            built = self._learn(connection, usage, [time for some in customers.values() for time in some])
            lacking = self._first
            while lacking.key in built:
                lacking = lacking.next()
            lacking_aggregates += [one for one, some in customers.items() if max(some) >= lacking.start]
        look_up_each_by_index(connection)
        return lacking_aggregates

    def _learn(self, connection: Connection, usage: tuple[str, str], times: Sequence[datetime]) -> set[str]:
        """Read the months in which a period of these times can begin; returns all months that have aggregates."""
        gateway_name, usage_type = usage
        read, built = self._read.get(usage), set[str]()
        now_read = {*(read or ())}
        given = {
            "gateway_name": gateway_name,
            "usage_type": usage_type,
            "since": min(times),
            "last": BillingMonth.containing(max(times)).key,
            "partitions": sorted(read or ()),
            "log_identity": self._tables.log_identity,
            "with_newer": read is None,
        }
        for row in connection.execute(statement("uncounted_periods"), given):
            if row.partition is None:
                period = (row.period_start, row.period_end)
                self._periods[gateway_name, row.gateway_customer_id, usage_type].add(period)
                continue
            built.add(row.partition)
            if row.is_read:
                now_read.add(row.partition)
        if built:
            self._read[usage] = now_read
        return built
