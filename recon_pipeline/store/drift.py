"""The exact comparison of counters with the log at one snapshot, and the same question asked again afterwards.

Invariant (rules 3 and 4): log and counters are read in one REPEATABLE READ transaction, so a writer that commits
event and increment together never looks like drift. What is looked at is chosen in that transaction, see `basis`.
"""

from collections import Counter
from dataclasses import dataclass, fields

from sqlalchemy import Connection

from recon_pipeline.core.guards import DriftSummary
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store import basis, holds
from recon_pipeline.store.basis import Look, Sums
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import SAMPLE_ROWS, Reconciliation
from recon_pipeline.store.horizons import CountersMark, Fingerprint, Month
from recon_pipeline.store.statements import statement

SPOT_CHECKED_KEYS = 100
"""Keys with new events that a comparison found in sync and the final check asks again about, others in each run; the
nightly audit asks about all of them."""

SPOT_CHECKED_EVENTS = 10_000
"""The newest events that those keys are drawn from: of a burst not all are read once more."""


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
    """

    summary: DriftSummary
    cells: tuple[DriftCell, ...]


@dataclass(frozen=True)
class DriftedKey:
    """One drifted key for a person to see; numbers as text, since an event sum may be past bigint."""

    gateway_customer_id: str
    usage_type: str
    period_start: str
    kind: str
    usage_count: str | None
    event_sum: str
    usage_limit: str | None
    quota_transition: str
    outcome: str
    error: str


@dataclass(frozen=True)
class Mismatch:
    """One key whose counter differs from its event sum, for a person to see.

    Attributes:
        outcome: What this run did with the key, `untouched` if it did not come to it, '' if it had not found it
            drifted.
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
    """Months of a metered usage whose counters were compared.

    Attributes:
        usage: Which.
        months: As they were at the snapshot.
        mark: Up to where counters were looked at.
    """

    usage: MeteredUsage
    months: tuple[Month, ...]
    mark: CountersMark


@dataclass(frozen=True)
class Verification:
    """The answer of a comparison on a fresh snapshot.

    Attributes:
        mismatch_count: Keys that differ.
        deferred_count: Those among them that this run put off because somebody had them locked.
        held_count: Those that it left alone because of a hold.
        untouched_count: Those that it had found drifted and did not come to.
        sample: At most `SAMPLE_ROWS` for each metered usage, those that are none of these first.
        verified: Up to where months were looked at; not those in which nothing had changed.
    """

    mismatch_count: int
    deferred_count: int
    held_count: int
    untouched_count: int
    sample: tuple[Mismatch, ...]
    verified: tuple[Verified, ...]


@dataclass(frozen=True)
class Compared:
    """What a comparison looked at.

    Attributes:
        counters_scanned: Counters of the extent; keys with events where only changed ones were looked at.
        looks: What was compared, for each metered usage.
        mark: Up to where counters were looked at, or None where they were not.
    """

    counters_scanned: int
    looks: tuple[Look, ...]
    mark: CountersMark | None


def compare(
    connection: Connection, run: Reconciliation, tables: BillingTables, *, sums: Sums, fingerprint: Fingerprint
) -> Compared:
    """Compare counters with the log and write what differs to `recon.counter_drift` under this run.

    Args:
        connection: In a REPEATABLE READ transaction, which the caller commits.
        run: What is looked at.
        tables: How the tables are shaped.
        sums: Whether the log can, and may, be read in increments.
        fingerprint: Of the counters, read before the transaction began.
    """
    connection.execute(statement("forget_drift"), {"run_id": run.run_id})
    counters_scanned = drifted = 0
    looks: list[Look] = []
    seen_below: list[int] = []
    for usage in run.extent.scope:
        chosen = basis.choose(connection, run, tables, usage, sums=sums, fingerprint=fingerprint)
        looks.append(chosen.look)
        seen_below.append(chosen.position.horizon)
        parameters = run.parameters(usage, tables) | chosen.parameters | {"ordinal_offset": drifted}
        if chosen.look is not Look.NOTHING:
            comparison = statement("compare_counters", **chosen.parts, **tables.parts, **tables.limit_parts)
            drifted += connection.execute(comparison, parameters).rowcount
        if chosen.look in (Look.LOG, Look.EVERY_KEY):
            counters_scanned += connection.execute(statement("count_counters"), parameters).scalar_one()
        else:
            counters_scanned += chosen.key_count
    holds.mark_held(connection, run.run_id)
    mark = None if Look.NOTHING in looks else CountersMark(min(seen_below), fingerprint)
    return Compared(counters_scanned, tuple(looks), mark)


def summarize(connection: Connection, run_id: str, *, counters_scanned: int) -> Comparison:
    """Read back what a run's comparison found."""
    rows = connection.execute(statement("summarize_drift"), {"run_id": run_id}).mappings().all()
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row["kind"]] += row["keys"]
        for figure in ("held", "over_quota_transitions", "under_quota_transitions", "usage_missed", "usage_excess"):
            totals[figure] += row[figure]
    known = {field.name: int(totals[field.name]) for field in fields(DriftSummary) if field.name in totals}
    return Comparison(
        summary=DriftSummary(counters_scanned=counters_scanned, **known),
        cells=tuple(DriftCell(row["partition"], row["kind"], row["keys"]) for row in rows),
    )


def sample(connection: Connection, run_id: str, *, outcomes: tuple[str, ...] | None = None) -> tuple[DriftedKey, ...]:
    """The at most `SAMPLE_ROWS` drifted keys of a run that matter most to a person, of the given outcomes or of all."""
    rows = connection.execute(
        statement("sample_drift"),
        {"run_id": run_id, "outcomes": list(outcomes) if outcomes else None, "sample_rows": SAMPLE_ROWS},
    )
    return tuple(DriftedKey(**row) for row in rows.mappings())


def verify(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    *,
    sums: Sums,
    fingerprint: Fingerprint,
    compared: CountersMark | None,
) -> Verification:
    """Ask log and counters afresh, by another statement than the comparison's, whether they match.

    Args:
        connection: In a REPEATABLE READ transaction of its own.
        run: What is looked at.
        tables: How the tables are shaped.
        sums: Whether the log can, and may, be read in increments.
        fingerprint: Of the counters, read before the transaction began.
        compared: Up to where this run's comparison looked, if it did: then of the keys that it found in sync and that
            have had no event since only some are looked at again, and counters that changed since are the next run's.
    """
    counts = dict.fromkeys(("mismatch_count", "deferred_count", "held_count", "untouched_count"), 0)
    found: list[Mismatch] = []
    verified: list[Verified] = []
    names = [field.name for field in fields(Mismatch)]
    for usage in run.extent.scope:
        chosen = basis.choose(connection, run, tables, usage, sums=sums, fingerprint=fingerprint)
        if chosen.look is Look.NOTHING:
            continue
        parts, mark = chosen.parts, CountersMark(chosen.position.horizon, fingerprint)
        parameters = run.parameters(usage, tables) | chosen.parameters
        if compared is not None and chosen.look is Look.CHANGED_KEYS:
            parts, mark = chosen.parts_after_comparison, compared
            parameters |= {
                "last_verified_below": parameters["verified_below"],
                "verified_below": str(compared.below),
                "spot_checked_keys": SPOT_CHECKED_KEYS,
                "spot_checked_events": SPOT_CHECKED_EVENTS,
            }
        if chosen.months is not None:
            verified.append(Verified(usage, chosen.months, mark))
        rows = connection.execute(statement("find_mismatches", **parts, **tables.parts), parameters).mappings().all()
        if rows:
            counts = {name: count + rows[0][name] for name, count in counts.items()}
        found.extend(Mismatch(**{name: row[name] for name in names}) for row in rows)
    return Verification(**counts, sample=tuple(found), verified=tuple(verified))
