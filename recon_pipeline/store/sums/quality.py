"""The event log as a run finds it: how much of it there is, what does not count, what is odd.

Reads only; never a row of it leaves Postgres but a sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.database import look_up_by_index, plan_as_usual, sum_by_hash
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.horizons import Month
from recon_pipeline.store.sums.run import Reconciliation
from recon_pipeline.store.sums.strategy import Sums

MOST_EVENTS_SAMPLED = 10_000
"""A key with more events gives no sample of odd ones in a tick, which would read them all."""

MOST_BEYOND = 1_000
"""Events outside of the known months that a tick looks at, of each kind: a log may be much older than the first one."""


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


@dataclass(frozen=True)
class BeyondMonths:
    """Events that no run looks at, since their period begins in no known month.

    Attributes:
        earlier_count: Before the first one.
        later_count: After the last one, or at infinity.
        never_count: Without a period_start.
        is_exact: They are so many; else at least so many.
        sample: A few of them for each metered usage.
    """

    earlier_count: int
    later_count: int
    never_count: int
    is_exact: bool
    sample: tuple[OddEvent, ...]

    @property
    def event_count(self) -> int:
        """All of them."""
        return self.earlier_count + self.later_count + self.never_count


@dataclass(frozen=True)
class Known:
    """What the aggregates tell of a run's months.

    Attributes:
        horizon: Events of transactions below it are in the aggregates.
        months: Of each metered usage.
    """

    horizon: int
    months: Mapping[MeteredUsage, tuple[Month, ...]]

    @property
    def every_month(self) -> tuple[Month, ...]:
        """The months of all metered usages."""
        return tuple(month for of_usage in self.months.values() for month in of_usage)


def known(connection: Connection, run: Reconciliation, tables: BillingTables) -> Known | None:
    """What the aggregates tell of a run's months at this snapshot; None if one is not built or of another log."""
    here = horizons.position(connection, tables)
    months = horizons.aggregated_months(connection, run.extent, here)
    return None if months is None or here.aggregated_below is None else Known(here.aggregated_below, months)


def measure(
    connection: Connection, run: Reconciliation, tables: BillingTables, known: Known | None, *, since: datetime | None
) -> LogQuality:
    """Measure the log within the run's extent, over all metered usages of its scope.

    Args:
        connection: In the REPEATABLE READ transaction that read what is known.
        run: What is looked at.
        tables: How the tables are shaped.
        known: The aggregates to start from, to which what has come since is added: that is what is new. None: the log
            is read.
        since: Without aggregates, events created after it are new: the start of the last finished run by the database's
            clock, or None if there was none.
    """
    totals = [0, 0, 0, 0, 0]
    for usage in run.extent.scope:
        parameters = run.parameters(usage, tables)
        if known is None:
            asked = {"since": since, "request_id_is_unique": tables.request_id_is_unique}
            sum_by_hash(connection)
            row = connection.execute(statement("measure_events", tables.parts), parameters | asked).one()
        else:
            look_up_by_index(connection)
            row = connection.execute(
                statement("measure_increment", tables.parts, which_events="beyond_horizon"),
                parameters | {"horizon": str(known.horizon)},
            ).one()
        totals = [total + figure for total, figure in zip(totals, row, strict=True)]
    stored = known.every_month if known is not None and run.extent.customers is None else ()
    for month in stored:
        counted = (month.invalid_count, month.dedupe_count, month.outside_period_count)
        added = (month.event_count + month.invalid_count + month.dedupe_count, *counted, 0)
        totals = [total + figure for total, figure in zip(totals, added, strict=True)]
    return LogQuality(*totals)


def sample_odd(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    known: Known | None,
    *,
    invalid: bool,
) -> tuple[OddEvent, ...]:
    """A few invalid events, or a few outside their period; at most `SAMPLE_ROWS` for each metered usage.

    Args:
        connection: In a transaction.
        run: What is looked at.
        tables: How the tables are shaped.
        known: Aggregates to find them through, or None to read the log.
        invalid: Which of the two.
    """
    found: list[OddEvent] = []
    for usage in run.extent.scope:
        parameters = run.parameters(usage, tables) | {"invalid": invalid}
        if known is None:
            plan_as_usual(connection)
            rows = connection.execute(statement("sample_odd_events", tables.parts), parameters)
        else:
            look_up_by_index(connection)
            parameters |= {"horizon": str(known.horizon), "most_events_sampled": MOST_EVENTS_SAMPLED}
            rows = connection.execute(statement("sample_odd_events_by_key", tables.parts), parameters)
        found.extend(OddEvent(**row) for row in rows.mappings())
    return tuple(found)


def beyond_months(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    first: BillingMonth,
    last: BillingMonth,
    sums: Sums,
) -> BeyondMonths | None:
    """The events of the run's scope that lie in no known month, of any customer; None if a tick could not tell cheaply.

    Args:
        connection: In a transaction.
        run: Whose scope is looked at.
        tables: How the tables are shaped.
        first: The first known month.
        last: The last one.
        sums: Whether the run reads all of the log: then all of them are counted.
    """
    if sums is Sums.INCREMENTS and not tables.finds_periods:
        return None
    counts, sample, is_exact = [0, 0, 0], list[OddEvent](), True
    names = [field.name for field in fields(OddEvent)]
    for usage in run.extent.scope:
        asked = run.parameters(usage, tables) | {"first_start": first.start, "last_end": last.end}
        if sums is Sums.LOG:
            plan_as_usual(connection)
        else:
            look_up_by_index(connection)
        rows = connection.execute(statement("sample_beyond_months"), asked | {"most": MOST_BEYOND}).mappings().all()
        sample += [OddEvent(**{name: row[name] for name in names}) for row in rows if row["event_id"] is not None]
        found = rows[0]
        if sums is Sums.LOG:
            found = connection.execute(statement("count_beyond_months"), asked).mappings().one()
        else:
            is_exact = is_exact and found["is_all"]
        counts = [
            count + found[name]
            for count, name in zip(counts, ("earlier_count", "later_count", "never_count"), strict=True)
        ]
    return BeyondMonths(*counts, is_exact=is_exact, sample=tuple(sample))


def invisible_usages(connection: Connection, run: Reconciliation, tables: BillingTables) -> tuple[MeteredUsage, ...]:
    """The metered usages with counters that are not 0 and not one visible event in any period."""
    invisible: list[MeteredUsage] = []
    for usage in run.extent.scope:
        row = connection.execute(statement("log_visibility"), run.parameters(usage, tables)).one()
        if row.has_usage and not row.has_events:
            invisible.append(usage)
    return tuple(invisible)
