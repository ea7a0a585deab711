"""Event sums per key, kept in `recon.usage_aggregate`.

Invariant: one run at a time writes a month's aggregates (the month's row in `recon.horizon` is locked first); sums and
what is stored of them are of one snapshot, that of the statement after the lock.
"""

from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection

from recon_pipeline.core.periods import months_between
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.statements import statement


@dataclass(frozen=True)
class AggregateTotals:
    """What the aggregates of an extent add up to.

    Attributes:
        keys: Keys with events.
        events: Events that count.
        usage: Their quantities.
        keys_changed: Keys written or removed because the log had changed.
    """

    keys: int
    events: int
    usage: Decimal
    keys_changed: int


def store_from_log(connection: Connection, run: Reconciliation, tables: BillingTables) -> AggregateTotals:
    """Bring the stored aggregates of the run's extent in line with the log; writes only keys that changed.

    Args:
        connection: In a READ COMMITTED transaction of its own, which the caller commits.
        run: What is looked at.
        tables: How the tables are shaped.
    """
    months = months_between(run.extent.first, run.extent.last)
    connection.execute(
        statement("lock_horizons"), {"run_id": run.run_id, "partitions": [month.key for month in months]}
    )
    totals = AggregateTotals(keys=0, events=0, usage=Decimal(0), keys_changed=0)
    for usage in run.extent.scope:
        row = connection.execute(statement("store_aggregates", **tables.parts), run.parameters(usage, tables)).one()
        totals = AggregateTotals(
            keys=totals.keys + row.keys,
            events=totals.events + row.events,
            usage=totals.usage + row.usage,
            keys_changed=totals.keys_changed + row.keys_changed,
        )
    return totals


@dataclass(frozen=True)
class OversizedSum:
    """A key whose event sum no counter can hold; values as Postgres prints them."""

    gateway_customer_id: str
    period_start: str
    event_sum: str


def oversized(
    connection: Connection, run: Reconciliation, tables: BillingTables
) -> tuple[int, tuple[OversizedSum, ...]]:
    """How many stored sums no counter can hold, and at most `SAMPLE_ROWS` of them for each metered usage."""
    found, sums = 0, list[OversizedSum]()
    for usage in run.extent.scope:
        rows = connection.execute(statement("oversized_aggregates"), run.parameters(usage, tables)).all()
        found += rows[0].found if rows else 0
        sums.extend(OversizedSum(row.gateway_customer_id, row.period_start, row.event_sum) for row in rows)
    return found, tuple(sums)
