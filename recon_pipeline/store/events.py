"""The event log as a run finds it: how much of it there is, what does not count, what is odd.

Reads only; never a row of it leaves Postgres but a sample.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
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
            statement("measure_events", **tables.parts),
            run.parameters(usage, tables) | {"since": since, "request_id_is_unique": tables.request_id_is_unique},
        ).one()
        totals = [total + figure for total, figure in zip(totals, row, strict=True)]
    return LogQuality(*totals)


def sample_odd(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, invalid: bool
) -> tuple[OddEvent, ...]:
    """A few invalid events, or a few outside their period; at most `SAMPLE_ROWS` for each metered usage."""
    return tuple(
        OddEvent(**row)
        for usage in run.extent.scope
        for row in connection.execute(
            statement("sample_odd_events"), run.parameters(usage, tables) | {"invalid": invalid}
        ).mappings()
    )


def invisible_usages(connection: Connection, run: Reconciliation, tables: BillingTables) -> tuple[MeteredUsage, ...]:
    """The metered usages with counters that are not 0 and not one visible event in any period."""
    invisible: list[MeteredUsage] = []
    for usage in run.extent.scope:
        row = connection.execute(statement("log_visibility"), run.parameters(usage, tables)).one()
        if row.has_usage and not row.has_events:
            invisible.append(usage)
    return tuple(invisible)
