"""The last check of a run: do counters match the log, on a new snapshot?

Invariant: another statement than the comparison's checks it, so that neither can hide the other's mistake. As in the
comparison, log and counters are read in one REPEATABLE READ transaction that has locked them before its snapshot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters.usage_snapshot import MOST_KEYS, UsageSnapshot
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation


@dataclass(frozen=True)
class Mismatch:
    """One key whose counter differs from its event sum, for a person to see.

    Attributes:
        outcome: What this run did with the key; `untouched` if it did not reach it, '' if it had not found it drifted.
        error: Why, where it could not be repaired.
    """

    gateway_customer_id: str
    period_start: str
    period_end: str
    usage_count: str | None
    event_sum: str
    outcome: str
    error: str


@dataclass(frozen=True)
class Verified:
    """Months of a metered usage whose counters match, but for open keys.

    Attributes:
        usage: Which.
        events_below: The verifying snapshot saw all events of transactions below it; None where that is unknown.
        counters_below: The check covered row versions of counters of transactions below it.
        seen_below: The snapshot saw what transactions below it wrote.
        mismatches: The open keys, at most `MOST_KEYS`.
        seal_ids: By month, `YYYY-MM`, the seal, or the count in the lake, that they match instead of the log.
    """

    usage: MeteredUsage
    events_below: int | None
    counters_below: int
    seen_below: int
    mismatches: tuple[Mismatch, ...]
    seal_ids: Mapping[str, int]


@dataclass(frozen=True)
class Mismatches:
    """Keys whose counters differ from their event sums.

    Attributes:
        mismatch_count: How many.
        deferred_count: Those among them that this run put off because another session had them locked.
        held_count: Those that it left alone because of a hold.
        doubtful_count: Those that it left alone because the log does not say for certain what they should be.
        untouched_count: Those that it had found drifted and did not reach.
        sample: At most `SAMPLE_ROWS` for each metered usage and month, those that are none of these first.
    """

    mismatch_count: int = 0
    deferred_count: int = 0
    held_count: int = 0
    doubtful_count: int = 0
    untouched_count: int = 0
    sample: tuple[Mismatch, ...] = ()

    def __add__(self, other: "Mismatches") -> "Mismatches":
        """Both."""
        return Mismatches(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Mismatches)))


@dataclass(frozen=True, kw_only=True)
class Verification(Mismatches):
    """The answer of a comparison on a fresh snapshot: the keys that differ, of all months and of each.

    Attributes:
        months: By `YYYY-MM`, where any differ.
        verified: Up to where months were checked; without those in which more than `MOST_KEYS` differ.
        known_since: When the log of these aggregates was first seen; None if there are none.
        settled_below: Events of transactions below it counted as settled; None if none did.
    """

    months: Mapping[str, Mismatches]
    verified: tuple[Verified, ...]
    known_since: str | None
    settled_below: int | None

    def of_month(self, partition: str) -> Mismatches:
        """The keys that differ of one month, `YYYY-MM`."""
        return self.months.get(partition, Mismatches())


def verify(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, mode: Mode, compared_below: int | None
) -> Verification:
    """Check on a new snapshot, with another statement than the comparison's, whether counters match the log.

    Args:
        connection: In a REPEATABLE READ transaction of its own that has locked the tables.
        run: What the run covers.
        tables: How the tables are shaped.
        mode: Whether the log can, and may, be read in increments.
        compared_below: This run's comparison, if it made one, saw what transactions below it wrote. Then only keys with
            events since the last verification, open keys and drifted ones are checked again; a counter that changed
            after the comparison is left to the next run.
    """
    months: dict[str, Mismatches] = {}
    verified: list[Verified] = []
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    for usage in run.extent.scope:
        snapshot = UsageSnapshot(connection, run, tables, usage, position)
        suspects = None if compared_below is None else snapshot.suspects_with_events(mode)
        rows = snapshot.find_mismatches(suspects)
        for partition, found in _by_month(rows).items():
            months[partition] = months.get(partition, Mismatches()) + found
        mismatches = tuple(map(_mismatch, rows))
        if len(mismatches) <= MOST_KEYS:
            verified.append(
                Verified(
                    usage,
                    events_below=position.aggregated_below if position.is_known else None,
                    counters_below=position.oldest_transaction if compared_below is None else compared_below,
                    seen_below=position.oldest_transaction,
                    mismatches=mismatches,
                    seal_ids={one.month.key: one.seal_id for one in tables.standing_in(usage, run.extent)},
                )
            )
    known_since = position.known_since if position.is_known else None
    return Verification(
        **vars(sum(months.values(), Mismatches())),
        months=months,
        verified=tuple(verified),
        known_since=known_since,
        settled_below=position.settled_below,
    )


def _by_month(rows: Sequence[Any]) -> dict[str, Mismatches]:
    of_months: dict[str, list[Any]] = {}
    for row in rows:
        of_months.setdefault(row["partition"], []).append(row)
    return {partition: _mismatches(of_month) for partition, of_month in of_months.items()}


def _mismatches(rows: Sequence[Any]) -> Mismatches:
    """Those of one month, of which each row has all counts."""
    counts = {one.name: rows[0][one.name] for one in fields(Mismatches) if one.name != "sample"}
    return Mismatches(**counts, sample=tuple(map(_mismatch, rows[:SAMPLE_ROWS])))


def _mismatch(row: Any) -> Mismatch:
    return Mismatch(**{one.name: row[one.name] for one in fields(Mismatch)})
