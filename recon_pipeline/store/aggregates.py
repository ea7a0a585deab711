"""Event sums per key, kept in `recon.usage_aggregate`.

Invariant: one run at a time adds to them (it holds the row of `recon.event_log`, and nobody waits for it); an event is
added exactly once, since the sums and the horizon move in one transaction. A log that is not the one they were made
from is noticed, and everything is built anew.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth, contiguous_ranges, months_between
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store import horizons, ingest_xid
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.statements import statement


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
        connection: In a READ COMMITTED transaction of its own, which the caller commits.
        run: What is looked at; months of its extent are built if they are not.
        tables: How the tables are shaped; the log can be read in increments.
    """
    if not _is_ours_to_write(connection, tables):
        return Advance(waits_because="another run is adding events to the aggregates")
    _note_prepared(connection, tables)
    # After the lock, in a statement of its own: what is below this horizon is final in every statement that follows.
    position = horizons.position(connection, tables)
    rebuilt_because = _reason_to_rebuild(connection, run, position)
    if rebuilt_because is not None:
        connection.execute(statement("forget_aggregates"))
        connection.execute(statement("replace_event_log"), {"identity": position.identity})
    horizon = position.horizon
    if run.settle_seconds > 0:
        settled = connection.execute(
            statement("settled_horizon"), {"settle_seconds": run.settle_seconds}
        ).scalar_one_or_none()
        if settled is None:
            return Advance(
                rebuilt_because=rebuilt_because,
                waits_because="no run has taken a horizon longer than RECON_SETTLE_SECONDS ago",
            )
        horizon = int(settled)
    advances = [_Advancing(connection, run, tables, usage, horizon).advance() for usage in run.extent.scope]
    return Advance(
        absorbed_count=sum(one.absorbed_count for one in advances),
        built_months=_merged(one.built_months for one in advances),
        recomputed_months=_merged(one.recomputed_months for one in advances),
        rebuilt_because=rebuilt_because,
    )


def store_from_log(connection: Connection, run: Reconciliation, tables: BillingTables) -> StoredFromLog | None:
    """Bring the stored aggregates of the extent in line with a log that cannot be read in increments.

    Args:
        connection: In a READ COMMITTED transaction of its own, which the caller commits.
        run: What is looked at.
        tables: How the tables are shaped.

    Returns:
        What it added up to, or None where another run is at it.
    """
    if not _is_ours_to_write(connection, tables):
        return None
    connection.execute(statement("sum_by_hash"))
    connection.execute(statement("forget_horizons"))
    parts = tables.parts | {"which_events": "any_event", "stored_figures": "stored_figures"}
    rows = [
        connection.execute(statement("store_aggregates", **parts), run.parameters(usage, tables)).one()
        for usage in run.extent.scope
    ]
    return StoredFromLog(
        sum(row.keys for row in rows), sum(row.events for row in rows), sum(row.keys_changed for row in rows)
    )


def audit(connection: Connection, run: Reconciliation, tables: BillingTables) -> Audit:
    """Sum the log of the extent anew and compare with the aggregates; what differs is noted, `advance` recomputes it.

    Args:
        connection: In a REPEATABLE READ transaction of its own, which the caller commits.
        run: What is looked at; its months are built.
        tables: How the tables are shaped; the log can be read in increments.
    """
    found, sample, unaudited = 0, list[DifferingAggregate](), list[MeteredUsage]()
    parts = tables.parts | {"which_events": "below_horizon", "stored_figures": "stored_figures"}
    connection.execute(statement("sum_by_hash"))
    position = horizons.position(connection, tables)
    for usage in run.extent.scope:
        months = horizons.months_of_run(connection, run, usage, position)
        if months is None:
            unaudited.append(usage)
            continue
        rows = connection.execute(
            statement("audit_aggregates", **parts),
            run.parameters(usage, tables) | {"horizon": str(months[0].horizon)},
        ).all()
        found += rows[0].found if rows else 0
        sample.extend(
            DifferingAggregate(row.gateway_customer_id, row.period_start, row.period_end, row.aggregated, row.in_log)
            for row in rows
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
    connection: Connection
    run: Reconciliation
    tables: BillingTables
    usage: MeteredUsage
    horizon: int

    def advance(self) -> Advance:
        self._execute("create_horizon")
        locked = self._execute("lock_horizon").one()
        since, horizon = int(locked.horizon), max(int(locked.horizon), self.horizon)
        built = [month.partition for month in horizons.built_months(self.connection, self.usage)]
        absorbed = self._absorb(built, since, horizon) if horizon > since and built else {}
        wanted = [month.key for month in months_between(self.run.extent.first, self.run.extent.last)]
        missing = sorted(set(wanted) - set(built))
        for first, last in contiguous_ranges(map(BillingMonth.parse, missing)):
            self._build([month.key for month in months_between(first, last)], since, horizon)
        recomputed = self._recompute([*built, *missing], since, horizon) if locked.has_noted_keys else ()
        self._execute("move_horizon", since=str(since), horizon=str(horizon), touched=[*absorbed])
        return Advance(sum(absorbed.values()), tuple(missing), recomputed)

    def _absorb(self, partitions: list[str], since: int, horizon: int) -> dict[str, int]:
        """Add the events between two horizons to months that are built; returns how many by month."""
        parts = self.tables.parts | {"which_events": "since_horizon"}
        rows = self._execute("add_to_aggregates", parts, **self._range(partitions, since, horizon)).all()
        return {row.partition: row.events for row in rows}

    def _build(self, partitions: list[str], since: int, horizon: int) -> None:
        """Sum the events below the horizon of months without a gap between them."""
        parts = self.tables.parts | {"which_events": "below_horizon"}
        span = self._range(partitions, since, horizon)
        self._execute("sum_by_hash")
        self._execute("forget_months", **span)
        self._execute("build_aggregates", parts, **span)
        self._execute("total_months", **span)

    def _recompute(self, partitions: list[str], since: int, horizon: int) -> tuple[str, ...]:
        parts = self.tables.parts | {"which_events": "below_horizon_of_noted"}
        rows = self._execute("recompute_noted_keys", parts, **self._range(partitions, since, horizon))
        return tuple(rows.scalars())

    def _range(self, partitions: list[str], since: int, horizon: int) -> dict[str, Any]:
        return {
            "partitions": partitions,
            "start": BillingMonth.parse(min(partitions)).start,
            "end": BillingMonth.parse(max(partitions)).end,
            "since": str(since),
            "horizon": str(horizon),
        }

    def _execute(self, name: str, parts: dict[str, str] | None = None, **more: Any) -> Any:
        every_customer: dict[str, Any] = {"every_customer": True, "customers": []}
        parameters = self.run.parameters(self.usage, self.tables) | every_customer | more
        return self.connection.execute(statement(name, **(parts or {})), parameters)


def _is_ours_to_write(connection: Connection, tables: BillingTables) -> bool:
    """Lock the record of the log, which the first run of all makes; whether no other run holds it."""
    connection.execute(statement("note_event_log"), {"identity": tables.log_identity})
    return connection.execute(statement("lock_event_log")).one_or_none() is not None


def _note_prepared(connection: Connection, tables: BillingTables) -> None:
    """Spare the runs to come to ask what the log lacks, as long as its catalog stays as it is."""
    if connection.execute(statement("prepared_catalog")).scalar_one() == tables.catalog_version:
        return
    left = ingest_xid.lacking(connection, request_id_is_unique=tables.request_id_is_unique)
    if not any(lack.rules_out_increments for lack in left):
        connection.execute(statement("note_prepared_catalog"), {"catalog_version": tables.catalog_version})


def _reason_to_rebuild(connection: Connection, run: Reconciliation, position: horizons.Position) -> str | None:
    if position.was_truncated:
        return "the log was truncated"
    if not position.is_known:
        return f"the log is another one: it was {position.known_identity}, it is {position.identity}"
    for usage in run.extent.scope:
        for month in horizons.built_months(connection, usage)[:1]:
            if month.horizon > position.horizon:
                return (
                    f"the horizon of {usage} ({month.horizon}) is ahead of the server ({position.horizon}): "
                    "the database was restored"
                )
    return None


def _merged(months: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(sorted({key for keys in months for key in keys}))
