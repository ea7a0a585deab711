"""The exact comparison of counters with the log at one snapshot.

Invariant: log and counters are read in one REPEATABLE READ transaction that has locked them before its snapshot, so a
writer that commits event and increment together never looks like drift. Aggregates and changes may choose which keys
are compared; only the log's own rows decide whether a key differs. So a wrong aggregate can make a run compare a key
for nothing, and never raises an alarm or changes a counter.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from sqlalchemy import Connection, RowMapping

from recon_pipeline.core.guards import DriftSummary
from recon_pipeline.store.counters import (
    doubt_of_customers,
    doubt_of_deleted_events,
    doubt_of_events_left,
    doubt_of_identity,
    doubt_of_periods,
    holds,
)
from recon_pipeline.store.counters.usage_snapshot import UsageSnapshot
from recon_pipeline.store.lake import counts
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.statements import labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

# Removes what an earlier attempt of the same run had found, so that a retried step starts clean.
# Invariant: only rows of this run; what it repaired is in the ledger.
# Binds: run_id text
_FORGET_DRIFT = labelled("forget_drift", "delete from recon.counter_drift where run_id = :run_id")


class Coverage(StrEnum):
    """What is compared.

    Attributes:
        EVERY_KEY: Every key, with its events in the log.
        CHANGED_KEYS: Those keys of which a counter or events changed since they were verified.
    """

    EVERY_KEY = "every key"
    CHANGED_KEYS = "changed keys"


@dataclass(frozen=True)
class DriftCell:
    """Drifted keys of one month and kind.

    Attributes:
        partition: `YYYY-MM`.
        kind: `missing`, `under`, `over` or `orphan`.
        keys: How many.
    """

    partition: str
    kind: str
    keys: int


@dataclass(frozen=True)
class Comparison:
    """What a run's comparison found.

    Attributes:
        summary: Over the whole extent.
        cells: By month and kind, only those that are not 0.
        months: By month, `YYYY-MM`, those with drift; how many counters were scanned is not known of each.
    """

    summary: DriftSummary
    cells: tuple[DriftCell, ...]
    months: Mapping[str, DriftSummary]

    def of_month(self, month: str) -> DriftSummary:
        """What was found in a month."""
        return self.months.get(month, DriftSummary(counters_scanned=0))


@dataclass(frozen=True)
class DriftedKey:
    """One drifted key for a person to see; numbers as text, since an event sum may be past bigint."""

    gateway_customer_id: str
    usage_type: str
    period_start: str
    period_end: str
    kind: str
    usage_count: str | None
    event_sum: str
    difference: str
    usage_limit: str | None
    quota_transition: str
    outcome: str
    error: str


@dataclass(frozen=True)
class Compared:
    """What a comparison covered.

    Attributes:
        counters_scanned: Counters of the extent; if only changed keys were compared, those that are not 0, or the keys
            with events if these are more.
        stale_aggregates: Keys whose aggregate differs from the log's sum; no counter was changed by it.
        coverage: What was compared, for each metered usage.
        below: Transactions below it had ended, and so all that they wrote was seen.
    """

    counters_scanned: int
    stale_aggregates: int
    coverage: tuple[Coverage, ...]
    below: int


def compare(connection: Connection, run: Reconciliation, tables: BillingTables, *, mode: Mode) -> Compared:
    """Compare counters with the log and write what differs to `recon.counter_drift` under this run.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables, which the caller commits.
        run: What the run covers.
        tables: How the tables are shaped.
        mode: Whether the log can, and may, be read in increments.
    """
    connection.execute(_FORGET_DRIFT, {"run_id": run.run_id})
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    scanned = drifted = stale = 0
    coverage: list[Coverage] = []
    for usage in run.extent.scope:
        snapshot = UsageSnapshot(connection, run, tables, usage, position)
        found = snapshot.changed_since_verified(mode)
        if found is None:
            suspects, counters_scanned = None, snapshot.count_counters()
        else:
            suspects, counters_scanned = found
        coverage.append(Coverage.EVERY_KEY if suspects is None else Coverage.CHANGED_KEYS)
        scanned += counters_scanned
        drifted += snapshot.write_drift(suspects, ordinal_offset=drifted)
        stale += snapshot.note_stale(suspects) if suspects else 0
    if drifted:
        doubt_of_periods.mark_written_twice(connection, run, tables)
        doubt_of_customers.mark(connection, run.run_id)
        if run.refuses_deleted:
            doubt_of_deleted_events.mark(connection, run.run_id, tables.deletion_marks)
    holds.mark_held(connection, run.run_id)
    if drifted:
        counts.mark_incomplete(connection, run.run_id)
    if drifted:
        doubt_of_identity.mark(connection, run.run_id, tables, range(1, drifted + 1))
        # The last of all rules, since it lets keys through.
        doubt_of_events_left.mark(connection, run, reads_notes=position.is_known)
    return Compared(scanned, stale, tuple(coverage), position.oldest_transaction)


def summarize(connection: Connection, run_id: str, *, counters_scanned: int) -> Comparison:
    """Read back what a run's comparison found."""
    rows = connection.execute(statement("summarize_drift"), {"run_id": run_id}).mappings().all()
    by_month = defaultdict[str, list[RowMapping]](list)
    for row in rows:
        by_month[row["partition"]].append(row)
    return Comparison(
        summary=_summed(rows, counters_scanned),
        cells=tuple(DriftCell(row["partition"], row["kind"], row["keys"]) for row in rows),
        months={month: _summed(of_month) for month, of_month in by_month.items()},
    )


def _summed(rows: Iterable[RowMapping], counters_scanned: int = 0) -> DriftSummary:
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row["kind"]] += row["keys"]
        for figure in (
            "held",
            "doubtful",
            "approved",
            "excused_orphans",
            "over_quota_transitions",
            "under_quota_transitions",
            "usage_missed",
            "usage_excess",
        ):
            totals[figure] += row[figure]
    known = {field.name: int(totals[field.name]) for field in fields(DriftSummary) if field.name in totals}
    return DriftSummary(counters_scanned=counters_scanned, **known)


def sample(connection: Connection, run_id: str, *, outcomes: tuple[str, ...] | None = None) -> tuple[DriftedKey, ...]:
    """The at most `SAMPLE_ROWS` drifted keys of a run that matter most to a person, of the given outcomes or of all."""
    rows = connection.execute(
        statement("sample_drift"),
        {"run_id": run_id, "outcomes": list(outcomes) if outcomes else None, "sample_rows": SAMPLE_ROWS},
    )
    return tuple(DriftedKey(**row) for row in rows.mappings())
