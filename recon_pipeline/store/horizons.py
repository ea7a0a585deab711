"""How far the aggregates have come, and what therefore has to be looked at.

Invariant: transactions below the horizon had all ended when it was taken (`pg_snapshot_xmin`), so their rows are final
however late they committed. A run reads horizon, aggregates and rows at one snapshot. What a run verified is
remembered by month: below which transaction the events, and below which the counters, were part of what matched.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.periods import months_between
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.statements import statement

FAR_TRANSACTIONS = 2**31 - 1_000_000
"""Ages of rows are compared in 32 bits: what was verified longer ago than this is looked at whole."""


@dataclass(frozen=True)
class Position:
    """Which log this is and where its transactions stand, at one snapshot.

    Attributes:
        identity: Of server, database, tables and partitions.
        known_identity: Of the log that the aggregates are of; None where there are none.
        was_truncated: The log was truncated since.
        horizon: Every transaction below it has ended.
        next_transaction: None at or above it has begun.
    """

    identity: str
    known_identity: str | None
    was_truncated: bool
    horizon: int
    next_transaction: int

    @property
    def is_known(self) -> bool:
        """Whether the aggregates are of this log."""
        return self.identity == self.known_identity and not self.was_truncated


@dataclass(frozen=True)
class Fingerprint:
    """What Postgres has counted of changes to the counters, see `counters_fingerprint.sql`.

    Attributes:
        kept: Another text once a counter may have been deleted; None where changes are not counted.
        written: Another text once a counter was inserted or updated.
    """

    kept: str | None
    written: str


@dataclass(frozen=True)
class CountersMark:
    """Up to where counters were looked at.

    Attributes:
        below: Row versions of transactions below it were.
        fingerprint: Of the counters, read before they were.
    """

    below: int
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Month:
    """The aggregates of one month of a metered usage.

    Attributes:
        partition: `YYYY-MM`.
        horizon: Transaction id: events below it are in the aggregates.
        verified_below: Events below it were matched by counters; None: nothing is known.
        counters_verified_below: Row versions of counters below it were.
        fingerprint: Of the counters, read before they were verified.
        recomputed_count: Grows whenever deletions, audits or building anew have changed what was aggregated.
        key_count: Keys with events.
        event_count: Events that count.
        invalid_count: Events that are never summed.
        dedupe_count: Events whose request id was counted before.
        outside_period_count: Events with a timestamp outside of their period; they are summed.
    """

    partition: str
    horizon: int
    verified_below: int | None
    counters_verified_below: int | None
    fingerprint: Fingerprint
    recomputed_count: int
    key_count: int
    event_count: int
    invalid_count: int
    dedupe_count: int
    outside_period_count: int


@dataclass(frozen=True)
class OldestTransaction:
    """What holds the horizon back; what our role may not see is None.

    Attributes:
        horizon: Its transaction id.
        seconds: For how long.
        pid: Of the backend.
        database: That it is connected to.
        role: Who.
        application: As the application names itself.
        state: For example `idle in transaction`.
        prepared_as: The name of a prepared transaction.
    """

    horizon: str
    seconds: float | None
    pid: int | None
    database: str | None
    role: str | None
    application: str | None
    state: str | None
    prepared_as: str | None


def oldest_transaction(connection: Connection) -> OldestTransaction | None:
    """The oldest transaction that is still open, or None if none is."""
    row = connection.execute(statement("oldest_transaction")).mappings().one_or_none()
    return None if row is None else OldestTransaction(**row)


def position(connection: Connection, tables: BillingTables) -> Position:
    """Where the log stands, at the snapshot of the transaction or of this statement."""
    row = connection.execute(statement("log_position")).one()
    return Position(
        tables.log_identity, row.known_identity, row.was_truncated, int(row.horizon), int(row.next_transaction)
    )


def fingerprint(connection: Connection) -> Fingerprint:
    """What has been counted of changes to the counters; in a transaction before the one that compares."""
    row = connection.execute(statement("counters_fingerprint")).one()
    return Fingerprint(row.kept, row.written)


def built_months(connection: Connection, usage: MeteredUsage) -> tuple[Month, ...]:
    """The months whose aggregates are built, at the snapshot of the transaction or of this statement."""
    rows = connection.execute(
        statement("read_months"), {"gateway_name": usage.gateway_name, "usage_type": usage.usage_type}
    ).mappings()
    return tuple(
        Month(
            partition=row["partition"],
            horizon=int(row["horizon"]),
            verified_below=_number(row["verified_below"]),
            counters_verified_below=_number(row["counters_verified_below"]),
            fingerprint=Fingerprint(row["counters_kept"], row["counters_written"] or ""),
            recomputed_count=row["recomputed_count"],
            key_count=row["key_count"],
            event_count=row["event_count"],
            invalid_count=row["invalid_count"],
            dedupe_count=row["dedupe_count"],
            outside_period_count=row["outside_period_count"],
        )
        for row in rows
    )


def months_of_run(
    connection: Connection, run: Reconciliation, usage: MeteredUsage, here: Position
) -> tuple[Month, ...] | None:
    """The months of the run for one metered usage; None if one is not built, or the aggregates are of another log."""
    if not here.is_known:
        return None
    wanted = {month.key for month in months_between(run.extent.first, run.extent.last)}
    found = tuple(month for month in built_months(connection, usage) if month.partition in wanted)
    return found if len(found) == len(wanted) and found[0].horizon <= here.horizon else None


def aggregated_months(
    connection: Connection, run: Reconciliation, tables: BillingTables
) -> dict[MeteredUsage, tuple[Month, ...]] | None:
    """The months of the run for each metered usage; None if those of one are."""
    here = position(connection, tables)
    months: dict[MeteredUsage, tuple[Month, ...]] = {}
    for usage in run.extent.scope:
        found = months_of_run(connection, run, usage, here)
        if found is None:
            return None
        months[usage] = found
    return months


def _number(transaction: str | None) -> int | None:
    return None if transaction is None else int(transaction)
