"""The exact comparison of counters with the log at one snapshot, and the same question asked again afterwards.

Invariant: log and counters are read in one REPEATABLE READ transaction that has locked them before its snapshot, so a
writer that commits event and increment together never looks like drift. Which keys are looked at may be chosen by the
aggregates and by what changed; whether a key differs is decided by the log's own rows alone. So an aggregate that is
wrong can make a run look in vain, and never raise an alarm or change a counter.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row

from recon_pipeline.core.guards import DriftSummary
from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.counters import holds
from recon_pipeline.store.log.billing_tables import IS_SETTLED, BillingTables
from recon_pipeline.store.postgres.database import look_up_by_index, plan_as_usual, sum_by_hash
from recon_pipeline.store.postgres.statements import Part, labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.horizons import FAR_TRANSACTIONS, Month, Position
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation
from recon_pipeline.store.sums.strategy import Sums

# Removes what an earlier attempt of the same run had found, so that a retried step starts clean.
# Invariant: only rows of this run; what it repaired is in the ledger.
_FORGET_DRIFT = labelled("forget_drift", "delete from recon.counter_drift where run_id = :run_id")


MOST_KEYS = 20_000
"""From so many keys on that may differ, reading all of the log is quicker than looking each of them up. It is also how
many open keys are remembered: where more are open, nothing counts as verified."""

_KEYS: dict[str, Part] = {
    "given_keys": "given_keys",
    "in_extent_or_given": "in_extent_or_given",
    "counters": "counters_of_extent_or_given",
    "is_settled": IS_SETTLED,
}


class Look(StrEnum):
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
    """Months of a metered usage whose counters match, but for open keys.

    Attributes:
        usage: Which.
        events_below: The verifying snapshot saw all events of transactions below it; None where they cannot be told.
        counters_below: Row versions of counters of transactions below it were looked at.
        seen_below: What transactions below it wrote was seen.
        mismatches: The open keys, at most `MOST_KEYS`.
    """

    usage: MeteredUsage
    events_below: int | None
    counters_below: int
    seen_below: int
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True)
class Verification:
    """The answer of a comparison on a fresh snapshot.

    Attributes:
        mismatch_count: Keys that differ.
        deferred_count: Those among them that this run put off because somebody had them locked.
        held_count: Those that it left alone because of a hold.
        untouched_count: Those that it had found drifted and did not come to.
        sample: At most `SAMPLE_ROWS` for each metered usage, those that are none of these first.
        verified: Up to where months were looked at; not those in which more than `MOST_KEYS` differ.
        known_since: When the log was first seen whose aggregates tell up to where; None where none do.
    """

    mismatch_count: int
    deferred_count: int
    held_count: int
    untouched_count: int
    sample: tuple[Mismatch, ...]
    verified: tuple[Verified, ...]
    known_since: str | None


@dataclass(frozen=True)
class Compared:
    """What a comparison looked at.

    Attributes:
        counters_scanned: Counters of the extent; where only changed keys were looked at, those that are not 0, or the
            keys with events if these are more.
        stale_aggregates: Keys whose aggregate is not what the log adds up to; nothing was done by it.
        looks: What was compared, for each metered usage.
        below: Transactions below it had ended, and so all that they wrote was seen.
    """

    counters_scanned: int
    stale_aggregates: int
    looks: tuple[Look, ...]
    below: int


def compare(connection: Connection, run: Reconciliation, tables: BillingTables, *, sums: Sums) -> Compared:
    """Compare counters with the log and write what differs to `recon.counter_drift` under this run.

    Args:
        connection: In a REPEATABLE READ transaction that has locked the tables, which the caller commits.
        run: What is looked at.
        tables: How the tables are shaped.
        sums: Whether the log can, and may, be read in increments.
    """
    connection.execute(_FORGET_DRIFT, {"run_id": run.run_id})
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    scanned = drifted = stale = 0
    looks: list[Look] = []
    for usage in run.extent.scope:
        comparing = _Comparing(connection, run, tables, usage, position)
        found = comparing.changed_since_verified(sums)
        if found is None:
            suspects, counters_scanned = None, comparing.count_counters()
        else:
            suspects, counters_scanned = found
        looks.append(Look.EVERY_KEY if suspects is None else Look.CHANGED_KEYS)
        scanned += counters_scanned
        drifted += comparing.write_drift(suspects, ordinal_offset=drifted)
        stale += comparing.note_stale(suspects) if suspects else 0
    holds.mark_held(connection, run.run_id)
    return Compared(scanned, stale, tuple(looks), position.oldest_transaction)


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
    connection: Connection, run: Reconciliation, tables: BillingTables, *, sums: Sums, compared_below: int | None
) -> Verification:
    """Ask log and counters afresh, by another statement than the comparison's, whether they match.

    Args:
        connection: In a REPEATABLE READ transaction of its own that has locked the tables.
        run: What is looked at.
        tables: How the tables are shaped.
        sums: Whether the log can, and may, be read in increments.
        compared_below: What transactions below it wrote was seen by this run's comparison, if it made one: then only
            keys with events since the last verification, open keys and those that it found drifted are looked at again,
            and a counter that changed after it is the next run's.
    """
    counts = dict.fromkeys(("mismatch_count", "deferred_count", "held_count", "untouched_count"), 0)
    sample: list[Mismatch] = []
    verified: list[Verified] = []
    position = horizons.position(connection, tables, settle_seconds=run.settle_seconds)
    names = [field.name for field in fields(Mismatch)]
    for usage in run.extent.scope:
        comparing = _Comparing(connection, run, tables, usage, position)
        suspects = None if compared_below is None else comparing.suspects_with_events(sums)
        rows = comparing.find_mismatches(suspects)
        if rows:
            counts = {name: count + rows[0][name] for name, count in counts.items()}
        mismatches = tuple(Mismatch(**{name: row[name] for name in names}) for row in rows)
        sample += mismatches[:SAMPLE_ROWS]
        if len(mismatches) <= MOST_KEYS:
            verified.append(
                Verified(
                    usage,
                    events_below=position.aggregated_below if position.is_known else None,
                    counters_below=position.oldest_transaction if compared_below is None else compared_below,
                    seen_below=position.oldest_transaction,
                    mismatches=mismatches,
                )
            )
    known_since = position.known_since if position.is_known else None
    return Verification(**counts, sample=tuple(sample), verified=tuple(verified), known_since=known_since)


@dataclass(frozen=True)
class _Suspects:
    """Keys that may differ, as columns; values as Postgres prints them, so that none is too odd to be carried."""

    gateway_customer_id: tuple[str, ...] = ()
    period_start: tuple[str, ...] = ()
    period_end: tuple[str, ...] = ()
    added_up: tuple[str, ...] = ()
    is_noted: tuple[bool, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Row[Any]]) -> "_Suspects":
        found = [row for row in rows if row.gateway_customer_id is not None]
        return cls(*(tuple(getattr(row, field.name) for row in found) for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.gateway_customer_id)

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "customers_given": list(self.gateway_customer_id),
            "period_starts_given": list(self.period_start),
            "period_ends_given": list(self.period_end),
        }


_NONE_GIVEN = _Suspects()


@dataclass(frozen=True)
class _Comparing:
    """One metered usage of a run, at the snapshot of the transaction."""

    connection: Connection
    run: Reconciliation
    tables: BillingTables
    usage: MeteredUsage
    position: Position

    def changed_since_verified(self, sums: Sums) -> tuple[_Suspects, int] | None:
        """The changed keys that may differ, and how many counters there are; None: every key has to be compared."""
        months = self._verified_months(sums)
        if months is None:
            return None
        marks = self._marks(months)
        plan_as_usual(self.connection)
        counters = self._execute("look_at_counters", **marks).one()
        if counters.young is None:
            return None
        found = self._find_suspects(marks, counters.young)
        if found is None:
            return None
        suspects, total = found
        # Of the keys that did not change, as many must have a counter that is not 0 as have such a sum: else a counter
        # was deleted, which no row is left to tell of.
        unchanged_counters = counters.nonzero_count - total.nonzero_counters
        unchanged_sums = sum(month.nonzero_count for month in months) - total.nonzero_aggregates
        counters_scanned = max(counters.nonzero_count, sum(month.key_count for month in months))
        return (suspects, counters_scanned) if unchanged_counters == unchanged_sums else None

    def suspects_with_events(self, sums: Sums) -> _Suspects | None:
        """The keys that may differ of those with new events, and of open and drifted ones; None: look at every key."""
        months = self._verified_months(sums)
        found = None if months is None else self._find_suspects(self._marks(months), ())
        return None if found is None else found[0]

    def count_counters(self) -> int:
        return self._execute("count_counters").scalar_one()

    def write_drift(self, suspects: _Suspects | None, *, ordinal_offset: int) -> int:
        """Compare exactly, and keep what differs; returns how many keys."""
        if suspects is not None and not len(suspects):
            return 0
        parts = self.tables.limit_parts
        return self._exactly("compare_counters", suspects, parts, ordinal_offset=ordinal_offset).rowcount

    def find_mismatches(self, suspects: _Suspects | None) -> Sequence[Any]:
        if suspects is not None and not len(suspects):
            return ()
        return self._exactly("find_mismatches", suspects, {}).mappings().all()

    def note_stale(self, suspects: _Suspects) -> int:
        """Have keys summed anew whose aggregate the log has shown to be wrong; returns how many."""
        carried: dict[str, Any] = {"added_up": list(suspects.added_up), "noted": list(suspects.is_noted)}
        carried |= suspects.parameters
        return self._execute("note_stale_aggregates", {}, **carried).rowcount

    def _verified_months(self, sums: Sums) -> tuple[Month, ...] | None:
        """The months, if all but what changed since is known to match and can be told from what did not change."""
        if sums is Sums.LOG or self.run.extent.customers is not None:
            return None
        months = horizons.months_of_extent(self.connection, self.usage, self.run.extent, self.position)
        if months is None:
            return None
        return months if all(self._is_verified(month) for month in months) else None

    def _is_verified(self, month: Month) -> bool:
        return (
            month.verified_below is not None
            and month.counters_verified_below is not None
            and self.position.next_transaction - month.counters_verified_below < FAR_TRANSACTIONS
        )

    def _marks(self, months: Sequence[Month]) -> dict[str, Any]:
        return {
            "verified_below": str(min(month.verified_below or 0 for month in months)),
            "counters_verified_below": str(min(month.counters_verified_below or 0 for month in months)),
            "most_keys": MOST_KEYS,
        }

    def _find_suspects(
        self, marks: dict[str, Any], young: Sequence[Sequence[str]]
    ) -> tuple[_Suspects, Row[Any]] | None:
        """Of the keys that changed, those of `young` counters (customer, period's start and end) among them."""
        changed = {
            "customers_changed": [key[0] for key in young],
            "period_starts_changed": [key[1] for key in young],
            "period_ends_changed": [key[2] for key in young],
        }
        look_up_by_index(self.connection)
        horizon = str(self.position.aggregated_below)
        rows = self._execute("find_suspects", self.tables.parts, **marks, **changed, horizon=horizon).all()
        suspects = _Suspects.of(rows)
        return None if len(suspects) > MOST_KEYS else (suspects, rows[0])

    def _exactly(self, name: str, suspects: _Suspects | None, parts: dict[str, Part], **more: Any) -> Any:
        if suspects is None:
            sum_by_hash(self.connection)
        else:
            look_up_by_index(self.connection)
        given = (suspects or _NONE_GIVEN).parameters
        settled_below = self.position.settled_below
        return self._execute(
            name,
            _KEYS | self.tables.parts | parts,
            every_key=suspects is None,
            settled_below=None if settled_below is None else str(settled_below),
            most_keys=MOST_KEYS,
            **given,
            **more,
        )

    def _execute(self, name: str, parts: dict[str, Part] | None = None, **more: Any) -> Any:
        parameters = self.run.parameters(self.usage, self.tables) | more
        return self.connection.execute(statement(name, **(parts or {})), parameters)
