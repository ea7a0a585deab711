"""Moves the horizon: adds the new events of the log to the aggregates, and builds missing months.

Invariant: an event is added exactly once, since the sums and the horizon move in one transaction. If the log is not the
one that the aggregates were made from, everything is rebuilt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.event_identity import EventIdentity
from recon_pipeline.core.log_identity import difference
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log import ingest_xid
from recon_pipeline.store.log.billing_tables import NAMED_BY, BillingTables
from recon_pipeline.store.postgres.planning import look_up_by_index, sum_by_hash
from recon_pipeline.store.postgres.statements import Part, labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.aggregates import (
    is_ours_to_write,
    note_counters_without_sums,
    note_what_left,
    put_extent,
)
from recon_pipeline.store.sums.modes import prepared_catalog
from recon_pipeline.store.sums.run import Reconciliation

# The months that are built, of every metered usage.
_READ_BUILT_MONTHS = labelled(
    "read_built_months", "select gateway_name, usage_type, partition from recon.usage_month order by partition"
)
# Remembers the version of the catalog in which the log lacks nothing for the incremental mode.
# Binds: catalog_version text
_NOTE_PREPARED_CATALOG = labelled(
    "note_prepared_catalog", "update recon.event_log set prepared_catalog = :catalog_version"
)


@dataclass(frozen=True)
class Advance:
    """What a run did to the aggregates.

    Attributes:
        absorbed_count: Events added because they were new.
        built_months: Months summed from the whole log, because they were missing.
        recomputed_months: Months with keys summed again, because events were deleted or updated.
        rebuilt_because: Why everything was rebuilt, or None.
        waits_because: Why the horizon could not be moved, or None; what is stored stays true.
    """

    absorbed_count: int = 0
    built_months: tuple[str, ...] = ()
    recomputed_months: tuple[str, ...] = ()
    rebuilt_because: str | None = None
    waits_because: str | None = None


def advance(connection: Connection, run: Reconciliation, tables: BillingTables) -> Advance:
    """Add the events up to a new horizon, whatever month and customer they are of; build what months are missing.

    Args:
        connection: In a READ COMMITTED transaction of its own that has locked the tables, which the caller commits.
        run: What the run covers; its missing months are built.
        tables: How the tables are shaped; the log can be read in increments.
    """
    if not is_ours_to_write(connection, tables):
        return Advance(waits_because="another run is adding events to the aggregates")
    _note_prepared(connection, tables)
    # After the lock, in a statement of its own: what is below this horizon is final in every later statement.
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    rebuilt_because = _reason_to_rebuild(position)
    if rebuilt_because is not None or position.aggregated_below is None:
        forgotten = {"identity": position.log_identity, "is_another_log": rebuilt_because is not None}
        connection.execute(statement("forget_aggregates"), forgotten)
    if rebuilt_because is not None and position.aggregated_below is not None and not _is_renamed(position):
        note_counters_without_sums(connection, run, tables)
    since = 0 if rebuilt_because is not None else position.aggregated_below or 0
    horizon = position.oldest_transaction
    if run.settle_seconds > 0:
        if position.settled_below is None or rebuilt_because is not None:
            if position.aggregated_below is None or rebuilt_because is not None:
                _note_what_left(connection, run, tables)
            return Advance(
                rebuilt_because=rebuilt_because,
                waits_because="no run has taken a horizon longer than RECON_SETTLE_SECONDS ago",
            )
        horizon = position.settled_below
    return _Advancing(connection, run, tables, since, max(since, horizon)).advance(rebuilt_because)


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
        for row in self.connection.execute(_READ_BUILT_MONTHS):
            built.setdefault(MeteredUsage(row.gateway_name, row.usage_type), []).append(row.partition)
        touched: dict[MeteredUsage, dict[str, int]] = {}
        if self.horizon > self.since:
            touched = {usage: self._absorb(usage, months) for usage, months in built.items() if months}
        missing = {usage: self._build(usage, built[usage]) for usage in self.run.extent.scope}
        recomputed = self._recompute({usage: [*built[usage], *missing.get(usage, ())] for usage in built})
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
        parts = {"which_events": "since_horizon"}
        more = _span(partitions) | {"partitions": list(partitions), "since": str(self.since)}
        rows = self._execute(usage, "add_to_aggregates", parts, horizon=str(self.horizon), **more).all()
        return {row.partition: row.events for row in rows}

    def _build(self, usage: MeteredUsage, built: Sequence[str]) -> list[str]:
        """Sum the events below the horizon of the months that are missing; returns which these were."""
        missing = [month for month in self.run.extent.months if month.key not in built]
        for first, last in contiguous_ranges(missing):
            run = replace(self.run, extent=Extent(self.run.extent.scope, first, last))
            note_what_left(self.connection, run, self.tables, usage)
            put_extent(self.connection, run, self.tables, usage, horizon=self.horizon, notes_left=False)
        return [month.key for month in missing]

    def _recompute(self, built: dict[MeteredUsage, list[str]]) -> tuple[str, ...]:
        """Sum keys again whose events were deleted or updated; returns their months."""
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
                parts = {"which_events": "below_horizon_of_nameless"}
            else:
                look_up_by_index(self.connection)
                parts = {"which_events": "below_horizon_of_opened"}
            asked = _span(built[usage]) | {"every_key": False, "opens_differing": False, "notes_left": True}
            self._execute(usage, "put_sums", parts, horizon=str(self.horizon), **asked)
            self._execute(usage, "total_months", **_span([*partitions]), partitions=sorted(partitions))
        return tuple(sorted({partition for partitions in opened.values() for partition in partitions}))

    def _execute(self, usage: MeteredUsage, name: str, parts: dict[str, Part] | None = None, **more: Any) -> Any:
        every_customer: dict[str, Any] = {"every_customer": True, "customers": []}
        parameters = self.run.parameters(usage, self.tables) | every_customer | more
        return self.connection.execute(statement(name, self.tables.parts, **(parts or {})), parameters)


def _note_what_left(connection: Connection, run: Reconciliation, tables: BillingTables) -> None:
    """Record what has left the log in the run's months, which are built later."""
    every_customer = replace(run, extent=replace(run.extent, customers=None))
    for usage in run.extent.scope:
        note_what_left(connection, every_customer, tables, usage)


def _note_prepared(connection: Connection, tables: BillingTables) -> None:
    """Spare later runs the check of what the log lacks, as long as its catalog stays as it is."""
    if prepared_catalog(connection) == tables.prepared_catalog:
        return
    left = ingest_xid.lacking(connection, refuses_repetitions=tables.refuses_repetitions)
    if not any(lack.rules_out_increments for lack in left):
        version = {"catalog_version": tables.prepared_catalog}
        connection.execute(_NOTE_PREPARED_CATALOG, version)


def _is_renamed(position: horizons.Position) -> bool:
    """Whether it is the same log with another event identity."""
    log, _, named_by = position.log_identity.partition(NAMED_BY)
    known_log, _, known_named_by = (position.known_log_identity or "").partition(NAMED_BY)
    return log == known_log and named_by != known_named_by


def _reason_to_rebuild(position: horizons.Position) -> str | None:
    if position.was_truncated:
        return "the log was truncated"
    if _is_renamed(position):
        was, now = (
            (named or "").partition(NAMED_BY)[2] for named in (position.known_log_identity, position.log_identity)
        )
        default = str(EventIdentity())
        return f"RECON_EVENT_IDENTITY was changed from {was or default} to {now or default}"
    if position.log_identity != position.known_log_identity:
        return difference(position.known_log_identity or "", position.log_identity)
    if position.aggregated_below is not None and position.aggregated_below > position.oldest_transaction:
        return "the database was restored: the stored sums hold transactions that this server has not reached"
    return None


def _span(partitions: Sequence[str]) -> dict[str, Any]:
    """From the first to the last of some months."""
    return {"start": BillingMonth.parse(min(partitions)).start, "end": BillingMonth.parse(max(partitions)).end}
