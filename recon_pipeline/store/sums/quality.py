"""The quality of the log: how many events there are, how many do not count, and which are odd.

Reads only; no rows of the log leave Postgres except a sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime

from sqlalchemy import Connection, RowMapping

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import look_up_by_index, sum_by_hash
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.horizons import Month
from recon_pipeline.store.sums.run import Reconciliation

# The quality of the log below the horizon, of keys that follow it: of some customers, or of all in months with a seal,
# since a month has only the total of all its keys.
# Index: the primary key of recon.usage_aggregate, by period.
# Uses: in_months.
# Binds: customers text[], every_customer boolean, gateway_name text, sealed_months timestamptz[]
# Binds: sealed_until timestamptz[], usage_type text
_MEASURE_SUMS = labelled(
    "measure_sums",
    """
    select
        coalesce(sum(event_count + invalid_count + dedupe_count), 0)::bigint as events_scanned,
        coalesce(sum(invalid_count), 0)::bigint as invalid_count,
        coalesce(sum(dedupe_count), 0)::bigint as dedupe_count,
        coalesce(sum(outside_period_count), 0)::bigint as outside_period_count,
        0 as new_count
    from recon.usage_aggregate
    where {in_months}
        and case
            when :every_customer
                then date_trunc('month', period_start, 'UTC') = any(cast(:sealed_months as timestamptz[]))
            else gateway_customer_id = any(:customers)
        end
        -- Nothing is read where no month with a seal has such a key.
        and (
            not :every_customer
            or exists (
                select from recon.usage_month as month
                join unnest(
                    cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[])
                ) as sealed (start, until) on recon.billing_month(sealed.start) = month.partition
                where month.gateway_name = :gateway_name
                    and month.usage_type = :usage_type
                    and month.last_period_end > sealed.until
            )
        )
        and recon.follows_log(
            period_start, period_end,
            cast(:sealed_months as timestamptz[]), cast(:sealed_until as timestamptz[])
        )
    """,
)


MOST_EVENTS_SAMPLED = 10_000
"""A key with more events gives no sample of odd ones in a tick, which would read them all."""


@dataclass(frozen=True)
class LogQuality:
    """The quality of the log within the open months of an extent, in events unless said otherwise.

    Attributes:
        events_scanned: All of them.
        invalid_count: Never summed: quantity null or not finite; no customer, or one whose name is too long; a period
            that does not end after it begins.
        dedupe_count: Not summed because their identity was counted before.
        outside_period_count: Summed, although their event_timestamp lies outside their period.
        new_count: Created since the given instant.
    """

    events_scanned: int
    invalid_count: int
    dedupe_count: int
    outside_period_count: int
    new_count: int

    @classmethod
    def of(cls, row: RowMapping) -> "LogQuality":
        """The figures of a row that has other columns too."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})

    def __add__(self, other: "LogQuality") -> "LogQuality":
        """The figures of both."""
        return LogQuality(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(LogQuality)))


@dataclass(frozen=True)
class OddEvent:
    """An event that a person should see; all values as Postgres prints them."""

    event_id: str
    gateway_customer_id: str | None
    request_id: str | None
    quantity: str | None
    period_start: str
    period_end: str
    event_timestamp: str | None

    @classmethod
    def of(cls, row: RowMapping) -> "OddEvent":
        """The event of a row that has other columns too."""
        return cls(**{field.name: row[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Measured:
    """The measured quality of the log.

    Attributes:
        quality: The figures.
        invalid: A few of the invalid events; at most `SAMPLE_ROWS` for each metered usage.
        outside: A few of those outside their period; as many.
    """

    quality: LogQuality
    invalid: tuple[OddEvent, ...]
    outside: tuple[OddEvent, ...]


@dataclass(frozen=True)
class Known:
    """What the aggregates show of a run's months.

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

    def of_month(self, partition: str) -> tuple[Month, ...]:
        """One month, `YYYY-MM`, of all metered usages."""
        return tuple(month for month in self.every_month if month.partition == partition)


def known(connection: Connection, run: Reconciliation, tables: BillingTables) -> Known | None:
    """What the aggregates show of a run's months at this snapshot; None if one is not built or of another log."""
    here = horizons.position(connection, tables)
    months = horizons.aggregated_months(connection, run.extent, here)
    return None if months is None or here.aggregated_below is None else Known(here.aggregated_below, months)


def measure(
    connection: Connection, run: Reconciliation, tables: BillingTables, known: Known | None, *, since: datetime | None
) -> Measured:
    """Measure the log within the run's extent, over all metered usages of its scope.

    Args:
        connection: In the REPEATABLE READ transaction that read what is known.
        run: What the run covers.
        tables: How the tables are shaped.
        known: The aggregates to start from, to which new events are added. None: the whole log is read.
        since: Without aggregates, events created after it are new: the start of the last finished run by the database's
            clock, or None if there was none.
    """
    return _from_log(connection, run, tables, since) if known is None else _from_known(connection, run, tables, known)


def _from_log(connection: Connection, run: Reconciliation, tables: BillingTables, since: datetime | None) -> Measured:
    found, odd = LogQuality(0, 0, 0, 0, 0), dict[bool, list[OddEvent]]([(True, []), (False, [])])
    for usage in run.extent.scope:
        asked = {"since": since, "refuses_repetitions": tables.refuses_repetitions}
        sum_by_hash(connection)
        measured = statement("measure_events", tables.parts, which_events="in_extent_following_log")
        rows = connection.execute(measured, run.parameters(usage, tables) | asked).mappings().all()
        found += LogQuality.of(rows[0])
        for row in rows:
            if row["is_invalid"] is not None:
                odd[row["is_invalid"]].append(OddEvent.of(row))
    return Measured(found, tuple(odd[True]), tuple(odd[False]))


def _from_known(connection: Connection, run: Reconciliation, tables: BillingTables, known: Known) -> Measured:
    look_up_by_index(connection)
    horizon = {"horizon": str(known.horizon), "most_events_sampled": MOST_EVENTS_SAMPLED}
    found, odd = LogQuality(0, 0, 0, 0, 0), dict[bool, list[OddEvent]]([(True, []), (False, [])])
    increment = statement("measure_events", tables.parts, which_events="beyond_horizon")
    # Totals alone: odd events are searched below the horizon too, and only if there are any.
    totals = horizon | {"since": None, "refuses_repetitions": tables.refuses_repetitions, "sample_rows": 0}
    for usage in run.extent.scope:
        row = connection.execute(increment, run.parameters(usage, tables) | totals).mappings().one()
        found += replace(LogQuality.of(row), new_count=row["events_scanned"])
        if run.extent.customers is not None or tables.standing_in(usage, run.extent):
            row = connection.execute(_MEASURE_SUMS, run.parameters(usage, tables)).mappings().one()
            found += LogQuality.of(row)
    open_months = [month for month in known.every_month if month.seal_id is None]
    for month in open_months if run.extent.customers is None else ():
        counted = (month.invalid_count, month.dedupe_count, month.outside_period_count)
        found += LogQuality(month.event_count + month.invalid_count + month.dedupe_count, *counted, 0)
    for invalid, count in ((True, found.invalid_count), (False, found.outside_period_count)):
        for usage in run.extent.scope if count else ():
            asked = run.parameters(usage, tables) | horizon | {"invalid": invalid}
            rows = connection.execute(statement("sample_odd_events", tables.parts), asked).mappings()
            odd[invalid] += [OddEvent(**row) for row in rows]
    return Measured(found, tuple(odd[True]), tuple(odd[False]))


def invisible_usages(connection: Connection, run: Reconciliation, tables: BillingTables) -> tuple[MeteredUsage, ...]:
    """The metered usages with counters that are not 0 and not one visible event in any period."""
    invisible: list[MeteredUsage] = []
    for usage in run.extent.scope:
        row = connection.execute(statement("log_visibility"), run.parameters(usage, tables)).one()
        if row.has_usage and not row.has_events:
            invisible.append(usage)
    return tuple(invisible)
