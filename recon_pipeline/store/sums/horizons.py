"""The horizon of the aggregates, and what of the months counts as verified.

Invariant: transactions below a horizon had all ended when it was taken (`pg_snapshot_xmin`), so their rows are final
however late they committed. A run reads horizon, aggregates and rows at one snapshot. What a run verified is remembered
by month: below which transaction the events, and below which the counters, were part of what matched; keys for which
that is not true are open keys.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled, statement

# Waits until no run writes aggregates, months or open keys, and keeps them from it.
# Invariant: ends with the transaction.
_AWAIT_SUMS = labelled("await_sums", "select from recon.event_log for update")

FAR_TRANSACTIONS = 2**31 - 1_000_000
"""Ages of rows are compared in 32 bits: if a month was verified longer ago than this, all of it is compared."""

HELD_BACK_SECONDS = 600
"""Two ticks: a transaction that is open for longer was forgotten, or does too much at once."""


@dataclass(frozen=True)
class Position:
    """The log's identity, the horizon of its aggregates, and the server's transaction ids, at one snapshot.

    Attributes:
        log_identity: Of server, database, tables and partitions.
        known_log_identity: Of the log that the aggregates are of; None where there are none.
        known_since: When that log was first seen, as Postgres prints it; another time after everything was rebuilt.
        was_truncated: The log was truncated since.
        aggregated_below: Events of transactions below it are in the aggregates; None: none are.
        oldest_transaction: Every transaction below it has ended.
        next_transaction: None at or above it has begun.
        settled_below: Transactions below it had ended for longer than `RECON_SETTLE_SECONDS`; None if that is not set,
            or no run took a horizon so long ago.
    """

    log_identity: str
    known_log_identity: str | None
    known_since: str | None
    was_truncated: bool
    aggregated_below: int | None
    oldest_transaction: int
    next_transaction: int
    settled_below: int | None

    @property
    def is_known(self) -> bool:
        """Whether the aggregates are of this log."""
        return (
            self.log_identity == self.known_log_identity
            and not self.was_truncated
            and self.aggregated_below is not None
            and self.aggregated_below <= self.oldest_transaction
        )


@dataclass(frozen=True)
class Month:
    """The aggregates of one month of a metered usage.

    Attributes:
        partition: `YYYY-MM`.
        verified_below: Counters matched the events below it, except open keys; None: nothing is known.
        counters_verified_below: Row versions of counters below it matched.
        key_count: Keys with events.
        nonzero_count: Keys whose event sum is not 0.
        event_count: Events that count.
        invalid_count: Events that are never summed.
        dedupe_count: Events whose identity was counted before.
        outside_period_count: Events with a timestamp outside of their period; they are summed.
        negative_count: Events of negative quantity that count.
        seal_id: The seal that its counters follow instead of the log, or None in an open month.
        verified_seal_id: The seal that they matched when they were verified, or None: the log.
    """

    partition: str
    verified_below: int | None
    counters_verified_below: int | None
    key_count: int
    nonzero_count: int
    event_count: int
    invalid_count: int
    dedupe_count: int
    outside_period_count: int
    negative_count: int
    seal_id: int | None
    verified_seal_id: int | None


@dataclass(frozen=True)
class OldestTransaction:
    """What holds the horizon back; what our role may not see is None.

    Attributes:
        horizon: Its transaction id.
        seconds: For how long.
        pid: Of the backend.
        database: That it is connected to.
        role: Who.
        application: Its `application_name`.
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


def await_sums(connection: Connection) -> None:
    """Wait until no run writes aggregates, months or open keys; none begins to until the transaction ends."""
    connection.execute(_AWAIT_SUMS)


def position(connection: Connection, tables: BillingTables, *, settle_seconds: int = 0) -> Position:
    """The position of the log, at the snapshot of the transaction or of this statement."""
    row = connection.execute(statement("log_position"), {"settle_seconds": settle_seconds}).one()
    return Position(
        log_identity=tables.log_identity,
        known_log_identity=row.known_log_identity,
        known_since=row.known_since,
        was_truncated=row.was_truncated,
        aggregated_below=_number(row.aggregated_below),
        oldest_transaction=int(row.oldest_transaction),
        next_transaction=int(row.next_transaction),
        settled_below=_number(row.settled_below),
    )


def built_months(connection: Connection, usage: MeteredUsage, extent: Extent) -> tuple[Month, ...]:
    """The months of an extent whose aggregates are built, at the snapshot of the transaction or of this statement."""
    asked = {
        "gateway_name": usage.gateway_name,
        "usage_type": usage.usage_type,
        "first": extent.first.key,
        "last": extent.last.key,
    }
    return tuple(
        Month(
            partition=row["partition"],
            verified_below=_number(row["verified_below"]),
            counters_verified_below=_number(row["counters_verified_below"]),
            key_count=row["key_count"],
            nonzero_count=row["nonzero_count"],
            event_count=row["event_count"],
            invalid_count=row["invalid_count"],
            dedupe_count=row["dedupe_count"],
            outside_period_count=row["outside_period_count"],
            negative_count=row["negative_count"],
            seal_id=row["seal_id"],
            verified_seal_id=row["verified_seal_id"],
        )
        for row in connection.execute(statement("read_months"), asked).mappings()
    )


def months_of_extent(
    connection: Connection, usage: MeteredUsage, extent: Extent, here: Position
) -> tuple[Month, ...] | None:
    """All months of an extent for one metered usage; None if one is not built, or the aggregates are of another log."""
    if not here.is_known:
        return None
    found = built_months(connection, usage, extent)
    return found if len(found) == len(extent.months) else None


def aggregated_months(
    connection: Connection, extent: Extent, here: Position
) -> dict[MeteredUsage, tuple[Month, ...]] | None:
    """The months of an extent for each metered usage; None if `months_of_extent` is None for one."""
    months = {usage: months_of_extent(connection, usage, extent, here) for usage in extent.scope}
    known = {usage: of_usage for usage, of_usage in months.items() if of_usage is not None}
    return known if len(known) == len(months) else None


def _number(transaction: str | None) -> int | None:
    return None if transaction is None else int(transaction)
