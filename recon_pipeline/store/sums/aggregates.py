"""Event sums per key, kept in `recon.usage_aggregate`: which keys may differ is found by them, never what to write.

Invariant: one run at a time writes them (it holds the row of `recon.event_log`, and nobody waits for it). There is one
way to make them (`put_sums`: sum these keys from the log and put them there) and one to add what is new; an event is
added exactly once, since the sums and the horizon move in one transaction. A log that is not the one they were made
from is noticed, and everything is built anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from recon_pipeline.core.periods import BillingMonth, contiguous_ranges
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.database import look_up_by_index, sum_by_hash
from recon_pipeline.store.postgres.statements import Part, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.run import Reconciliation
from recon_pipeline.store.sums.strategy import prepared_catalog


@dataclass(frozen=True)
class Advance:
    """What a run did to the aggregates.

    Attributes:
        absorbed_count: Events added because they were new.
        built_months: Months summed from the whole log, as they were not there.
        recomputed_months: Months with keys summed anew, as events were deleted or updated.
        rebuilt_because: Why everything was built anew, or None.
        waits_because: Why the horizon could not be moved, or None; what is stored stays true.
    """

    absorbed_count: int = 0
    built_months: tuple[str, ...] = ()
    recomputed_months: tuple[str, ...] = ()
    rebuilt_because: str | None = None
    waits_because: str | None = None


@dataclass(frozen=True)
class StoredFromLog:
    """What the whole log of an extent added up to.

    Attributes:
        keys: Keys with events.
        events: Events that count.
        keys_changed: Keys written or removed because the log had changed.
    """

    keys: int
    events: int
    keys_changed: int


@dataclass(frozen=True)
class DifferingAggregate:
    """A key whose aggregate was not what the log adds up to; values as Postgres prints them."""

    gateway_customer_id: str
    period_start: str
    period_end: str
    aggregated: str
    in_log: str


@dataclass(frozen=True)
class Audit:
    """What the log itself says of the stored aggregates.

    Attributes:
        differing_count: Keys whose aggregate is not what the log adds up to.
        sample: At most `SAMPLE_ROWS` of them for each metered usage.
        unaudited: Metered usages without aggregates that could be audited.
    """

    differing_count: int
    sample: tuple[DifferingAggregate, ...]
    unaudited: tuple[MeteredUsage, ...]


@dataclass(frozen=True)
class OversizedSum:
    """A key whose event sum no counter can hold; values as Postgres prints them."""

    gateway_customer_id: str
    period_start: str
    event_sum: str


def advance(connection: Connection, run: Reconciliation, tables: BillingTables) -> Advance:
    """Add the events up to a new horizon, whatever month and customer they are of; build what months are missing.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What is looked at; months of its extent are built if they are not.
        tables: How the tables are shaped; the log can be read in increments.
    """
    if not is_ours_to_write(connection, tables):
        return Advance(waits_because="another run is adding events to the aggregates")
    _note_prepared(connection, tables)
    # After the lock, in a statement of its own: what is below this horizon is final in every statement that follows.
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    rebuilt_because = _reason_to_rebuild(position)
    if rebuilt_because is not None or position.aggregated_below is None:
        forgotten = {"identity": position.identity, "is_another_log": rebuilt_because is not None}
        connection.execute(statement("forget_aggregates"), forgotten)
    since = 0 if rebuilt_because is not None else position.aggregated_below or 0
    horizon = position.oldest_transaction
    if run.settle_seconds > 0:
        if position.settled_below is None or rebuilt_because is not None:
            return Advance(
                rebuilt_because=rebuilt_because,
                waits_because="no run has taken a horizon longer than RECON_SETTLE_SECONDS ago",
            )
        horizon = position.settled_below
    return _Advancing(connection, run, tables, since, max(since, horizon)).advance(rebuilt_because)


def store_from_log(connection: Connection, run: Reconciliation, tables: BillingTables) -> StoredFromLog | None:
    """Bring the stored aggregates of the extent in line with a log that cannot be read in increments.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What is looked at.
        tables: How the tables are shaped.

    Returns:
        What it added up to, or None where another run is at it.
    """
    if not is_ours_to_write(connection, tables):
        return None
    connection.execute(text("update recon.event_log set horizon = null where horizon is not null"))
    rows = [_put_extent(connection, run, tables, usage, horizon=None)[0] for usage in run.extent.scope]
    return StoredFromLog(
        sum(row.keys for row in rows), sum(row.events for row in rows), sum(row.keys_changed for row in rows)
    )


def audit(connection: Connection, run: Reconciliation, tables: BillingTables) -> Audit:
    """Sum the log of the extent anew, and put what differs from it in line.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What is looked at; its months are built.
        tables: How the tables are shaped; the log can be read in increments.
    """
    if not is_ours_to_write(connection, tables):
        return Audit(0, (), run.extent.scope)
    position = horizons.position(connection, tables)
    found, sample, unaudited = 0, list[DifferingAggregate](), list[MeteredUsage]()
    for usage in run.extent.scope:
        if horizons.months_of_extent(connection, usage, run.extent, position) is None:
            unaudited.append(usage)
            continue
        rows = _put_extent(connection, run, tables, usage, horizon=position.aggregated_below, opens_differing=True)
        found += rows[0].keys_differing
        sample.extend(
            DifferingAggregate(row.gateway_customer_id, row.period_start, row.period_end, row.aggregated, row.in_log)
            for row in rows
            if row.gateway_customer_id is not None
        )
    return Audit(found, tuple(sample), tuple(unaudited))


def oversized(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, months_tell: bool
) -> tuple[int, tuple[OversizedSum, ...]]:
    """How many stored sums no counter can hold, and at most `SAMPLE_ROWS` of them for each metered usage.

    Args:
        connection: In a transaction.
        run: What is looked at.
        tables: How the tables are shaped.
        months_tell: The aggregates are made in increments, which note in the months whether there are any.
    """
    months = {"first": run.extent.first.key, "last": run.extent.last.key, "months_tell": months_tell}
    found, sums = 0, list[OversizedSum]()
    for usage in run.extent.scope:
        rows = connection.execute(statement("oversized_aggregates"), run.parameters(usage, tables) | months).all()
        found += rows[0].found if rows else 0
        sums.extend(OversizedSum(row.gateway_customer_id, row.period_start, row.event_sum) for row in rows)
    return found, tuple(sums)


@dataclass(frozen=True)
class _Advancing:
    """One move of the horizon; holds the row of `recon.event_log`."""

    connection: Connection
    run: Reconciliation
    tables: BillingTables
    since: int
    horizon: int

    def advance(self, rebuilt_because: str | None) -> Advance:
        built: dict[MeteredUsage, list[str]] = {usage: [] for usage in self.run.extent.scope}
        for row in self.connection.execute(
            text("select gateway_name, usage_type, partition from recon.usage_month order by partition")
        ):
            built.setdefault(MeteredUsage(row.gateway_name, row.usage_type), []).append(row.partition)
        touched: dict[MeteredUsage, dict[str, int]] = {}
        if self.horizon > self.since:
            touched = {usage: self._absorb(usage, months) for usage, months in built.items() if months}
        missing = {usage: self._build(usage, built[usage]) for usage in self.run.extent.scope}
        recomputed = self._recompute({usage: built[usage] for usage in built if built[usage]})
        pairs = [(usage, partition) for usage, months in touched.items() for partition in months]
        self.connection.execute(
            statement("move_horizon"),
            {
                "since": str(self.since),
                "horizon": str(self.horizon),
                "gateways_touched": [usage.gateway_name for usage, _ in pairs],
                "usages_touched": [usage.usage_type for usage, _ in pairs],
                "partitions_touched": [partition for _, partition in pairs],
            },
        )
        return Advance(
            absorbed_count=sum(sum(events.values()) for events in touched.values()),
            built_months=tuple(sorted({month for months in missing.values() for month in months})),
            recomputed_months=recomputed,
            rebuilt_because=rebuilt_because,
        )

    def _absorb(self, usage: MeteredUsage, partitions: Sequence[str]) -> dict[str, int]:
        """Add the events between two horizons to months that are built; returns how many by month."""
        look_up_by_index(self.connection)
        parts = self.tables.parts | {"which_events": "since_horizon"}
        more = _span(partitions) | {"partitions": list(partitions), "since": str(self.since)}
        rows = self._execute(usage, "add_to_aggregates", parts, horizon=str(self.horizon), **more).all()
        return {row.partition: row.events for row in rows}

    def _build(self, usage: MeteredUsage, built: Sequence[str]) -> list[str]:
        """Sum the events below the horizon of the months that are missing; returns which these were."""
        missing = [month for month in self.run.extent.months if month.key not in built]
        for first, last in contiguous_ranges(missing):
            extent = Extent(self.run.extent.scope, first, last)
            _put_extent(self.connection, replace(self.run, extent=extent), self.tables, usage, horizon=self.horizon)
        return [month.key for month in missing]

    def _recompute(self, built: dict[MeteredUsage, list[str]]) -> tuple[str, ...]:
        """Sum keys anew whose events were deleted or updated; returns their months."""
        opened: dict[MeteredUsage, set[str]] = {}
        nameless: set[MeteredUsage] = set()
        for row in self.connection.execute(statement("take_notes")):
            usage = MeteredUsage(row.gateway_name, row.usage_type)
            opened.setdefault(usage, set()).add(row.partition)
            if row.is_nameless:
                nameless.add(usage)
        for usage, partitions in opened.items():
            if usage in nameless:
                sum_by_hash(self.connection)
                parts = self.tables.parts | {"which_events": "below_horizon_of_nameless"}
            else:
                look_up_by_index(self.connection)
                parts = self.tables.parts | {"which_events": "below_horizon_of_opened"}
            asked = _span(built[usage]) | {"every_key": False, "opens_differing": False}
            self._execute(usage, "put_sums", parts, horizon=str(self.horizon), **asked)
            self._execute(usage, "total_months", **_span([*partitions]), partitions=sorted(partitions))
        return tuple(sorted({partition for partitions in opened.values() for partition in partitions}))

    def _execute(self, usage: MeteredUsage, name: str, parts: dict[str, Part] | None = None, **more: Any) -> Any:
        every_customer: dict[str, Any] = {"every_customer": True, "customers": []}
        parameters = self.run.parameters(usage, self.tables) | every_customer | more
        return self.connection.execute(statement(name, **(parts or {})), parameters)


def is_ours_to_write(connection: Connection, tables: BillingTables) -> bool:
    """Lock the record of the log, which the first run of all makes; whether no other run holds it.

    Whoever changes aggregates, months or open keys holds it, to the end of its transaction.
    """
    connection.execute(statement("note_event_log"), {"identity": tables.log_identity})
    return connection.execute(statement("lock_event_log")).one_or_none() is not None


def _put_extent(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    usage: MeteredUsage,
    *,
    horizon: int | None,
    opens_differing: bool = False,
) -> Any:
    """Put what the log says of an extent, below a horizon or all of it, into the aggregates; returns what differed."""
    sum_by_hash(connection)
    parts = tables.parts | {"which_events": "in_extent" if horizon is None else "below_horizon"}
    asked = {
        "every_key": True,
        "opens_differing": opens_differing,
        "horizon": None if horizon is None else str(horizon),
    }
    rows = connection.execute(statement("put_sums", **parts), run.parameters(usage, tables) | asked).all()
    if run.extent.customers is None or opens_differing:
        totalled = {"partitions": [month.key for month in run.extent.months]}
        connection.execute(statement("total_months"), run.parameters(usage, tables) | totalled)
    return rows


def _note_prepared(connection: Connection, tables: BillingTables) -> None:
    """Spare the runs to come to ask what the log lacks, as long as its catalog stays as it is."""
    if prepared_catalog(connection) == tables.catalog_version:
        return
    left = ingest_xid.lacking(connection, request_id_is_unique=tables.request_id_is_unique)
    if not any(lack.rules_out_increments for lack in left):
        version = {"catalog_version": tables.catalog_version}
        connection.execute(text("update recon.event_log set prepared_catalog = :catalog_version"), version)


def _reason_to_rebuild(position: horizons.Position) -> str | None:
    if position.was_truncated:
        return "the log was truncated"
    if position.identity != position.known_identity:
        return f"the log is another one: it was {position.known_identity}, it is {position.identity}"
    if position.aggregated_below is not None and position.aggregated_below > position.oldest_transaction:
        return (
            f"the horizon ({position.aggregated_below}) is ahead of the server ({position.oldest_transaction}): "
            "the database was restored"
        )
    return None


def _span(partitions: Sequence[str]) -> dict[str, Any]:
    """From the first to the last of some months."""
    return {"start": BillingMonth.parse(min(partitions)).start, "end": BillingMonth.parse(max(partitions)).end}
