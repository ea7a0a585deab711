"""The event log as a run finds it: how much of it there is, what does not count, what is odd.

Reads only; never a row of it leaves Postgres but a sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.horizons import Month
from recon_pipeline.store.statements import statement


@dataclass(frozen=True)
class LogQuality:
    """The quality of the log within an extent, in events unless said otherwise.

    Attributes:
        events_scanned: All of them.
        invalid_count: Never summed: quantity null, not positive or not finite; no customer; a period that does not
            end after it begins.
        dedupe_count: Not summed because their request id was counted before.
        outside_period_count: Summed, although their event_timestamp lies outside their period.
        new_count: Created since the given instant.
    """

    events_scanned: int
    invalid_count: int
    dedupe_count: int
    outside_period_count: int
    new_count: int


@dataclass(frozen=True)
class OddEvent:
    """An event that a person should look at; all values as Postgres prints them."""

    event_id: str
    gateway_customer_id: str | None
    request_id: str | None
    quantity: str | None
    period_start: str
    period_end: str
    event_timestamp: str | None


def measure(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, since: datetime | None
) -> LogQuality:
    """Measure the log within the run's extent, over all metered usages of its scope.

    Args:
        connection: In a transaction.
        run: What is looked at.
        tables: How the tables are shaped.
        since: Start of the last finished run by the database's clock, or None if there was none.
    """
    totals = [0, 0, 0, 0, 0]
    for usage in run.extent.scope:
        row = connection.execute(
            statement("measure_events", **tables.parts, which_events="any_event"),
            run.parameters(usage, tables) | {"since": since, "request_id_is_unique": tables.request_id_is_unique},
        ).one()
        totals = [total + figure for total, figure in zip(totals, row, strict=True)]
    return LogQuality(*totals)


def measure_increment(
    connection: Connection, run: Reconciliation, tables: BillingTables, months: Mapping[MeteredUsage, tuple[Month, ...]]
) -> LogQuality:
    """The same figures from the totals of the months and what has come since; new are events beyond the horizon.

    Args:
        connection: In the REPEATABLE READ transaction that read the months.
        run: What is looked at.
        tables: How the tables are shaped.
        months: The run's months, all built, for each metered usage of its scope.
    """
    parts = tables.parts | {"which_events": "beyond_horizon"}
    scanned = invalid = repeated = outside = new = 0
    for usage, of_usage in months.items():
        row = connection.execute(
            statement("measure_increment", **parts),
            run.parameters(usage, tables) | {"horizon": str(of_usage[0].horizon)},
        ).one()
        stored = of_usage if run.extent.customers is None else ()
        scanned += row.events_scanned + sum(
            month.event_count + month.invalid_count + month.dedupe_count for month in stored
        )
        invalid += row.invalid_count + sum(month.invalid_count for month in stored)
        repeated += row.dedupe_count + sum(month.dedupe_count for month in stored)
        outside += row.outside_period_count + sum(month.outside_period_count for month in stored)
        new += row.new_count
    return LogQuality(scanned, invalid, repeated, outside, new)


def sample_odd(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    months: Mapping[MeteredUsage, tuple[Month, ...]] | None,
    *,
    invalid: bool,
) -> tuple[OddEvent, ...]:
    """A few invalid events, or a few outside their period; at most `SAMPLE_ROWS` for each metered usage.

    Args:
        connection: In a transaction.
        run: What is looked at.
        tables: How the tables are shaped.
        months: Aggregates to find them through, or None to read the log.
        invalid: Which of the two.
    """
    found: list[OddEvent] = []
    for usage in run.extent.scope:
        parameters = run.parameters(usage, tables) | {"invalid": invalid}
        if months is None:
            rows = connection.execute(statement("sample_odd_events", **tables.parts), parameters)
        else:
            parameters |= {"horizon": str(months[usage][0].horizon)}
            rows = connection.execute(statement("sample_odd_events_by_key", **tables.parts), parameters)
        found.extend(OddEvent(**row) for row in rows.mappings())
    return tuple(found)


def invisible_usages(connection: Connection, run: Reconciliation, tables: BillingTables) -> tuple[MeteredUsage, ...]:
    """The metered usages with counters that are not 0 and not one visible event in any period."""
    invisible: list[MeteredUsage] = []
    for usage in run.extent.scope:
        row = connection.execute(statement("log_visibility"), run.parameters(usage, tables)).one()
        if row.has_usage and not row.has_events:
            invisible.append(usage)
    return tuple(invisible)
