"""One metered usage at a snapshot: which keys may differ, and whether they do; for comparison and verification.

Invariant: aggregates and changes may choose which keys are compared; only the log's own rows decide whether a key
differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.postgres.planning import look_up_by_index, plan_as_usual, sum_by_hash
from recon_pipeline.store.postgres.statements import Part, labelled, statement
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.horizons import FAR_TRANSACTIONS, Month, Position
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation

# How many counters an extent holds.
# Invariant: read in the transaction of the comparison, so that shares are of the same snapshot.
# Index: none; the counters are few beside the log.
# Uses: in_extent.
_COUNT_COUNTERS = labelled("count_counters", "select count(*) from billing_usage_counters where {in_extent}")

MOST_KEYS = 20_000
"""From so many keys on that may differ, reading all of the log is quicker than looking each of them up. It is also how
many open keys are remembered: where more are open, nothing counts as verified."""


@dataclass(frozen=True)
class Suspects:
    """Keys that may differ, as columns; values as Postgres prints them, so that every value can be carried."""

    gateway_customer_id: tuple[str, ...] = ()
    period_start: tuple[str, ...] = ()
    period_end: tuple[str, ...] = ()
    added_up: tuple[str, ...] = ()
    is_noted: tuple[bool, ...] = ()

    @classmethod
    def of(cls, rows: Sequence[Row[Any]]) -> "Suspects":
        """The keys among these rows; one without a key has only totals."""
        found = [row for row in rows if row.gateway_customer_id is not None]
        return cls(*(tuple(getattr(row, field.name) for row in found) for field in fields(cls)))

    def __len__(self) -> int:
        return len(self.gateway_customer_id)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the statements that read given keys."""
        return {
            "customers_given": list(self.gateway_customer_id),
            "period_starts_given": list(self.period_start),
            "period_ends_given": list(self.period_end),
        }


_NONE_GIVEN = Suspects()


@dataclass(frozen=True)
class UsageSnapshot:
    """One metered usage of a run, at the snapshot of the transaction."""

    connection: Connection
    run: Reconciliation
    tables: BillingTables
    usage: MeteredUsage
    position: Position

    def changed_since_verified(self, mode: Mode) -> tuple[Suspects, int] | None:
        """The changed keys that may differ, and how many counters there are; None: every key has to be compared."""
        months = self._verified_months(mode)
        if months is None:
            return None
        marks = self._marks(months)
        plan_as_usual(self.connection)
        counters = self._execute("scan_counters", **marks).one()
        if counters.young is None:
            return None
        found = self._find_suspects(marks, counters.young)
        if found is None:
            return None
        suspects, total = found
        # Among the keys that did not change, there must be as many counters other than 0 as sums other than 0: else a
        # counter was deleted, which leaves no row.
        unchanged_counters = counters.nonzero_count - total.nonzero_counters
        unchanged_sums = sum(month.nonzero_count for month in months) - total.nonzero_aggregates
        counters_scanned = max(counters.nonzero_count, sum(month.key_count for month in months))
        return (suspects, counters_scanned) if unchanged_counters == unchanged_sums else None

    def suspects_with_events(self, mode: Mode) -> Suspects | None:
        """Of the keys with new events and of open and drifted ones, those that may differ; None: compare every key."""
        months = self._verified_months(mode)
        found = None if months is None else self._find_suspects(self._marks(months), ())
        return None if found is None else found[0]

    def count_counters(self) -> int:
        """How many counters the extent has."""
        return self.connection.execute(_COUNT_COUNTERS, self.run.parameters(self.usage, self.tables)).scalar_one()

    def write_drift(self, suspects: Suspects | None, *, ordinal_offset: int) -> int:
        """Compare exactly, and keep what differs; returns how many keys."""
        if suspects is not None and not len(suspects):
            return 0
        parts = self.tables.limit_parts
        return self._exactly("compare_counters", suspects, parts, ordinal_offset=ordinal_offset).rowcount

    def find_mismatches(self, suspects: Suspects | None) -> Sequence[Any]:
        """Find exactly which counters differ; each row has the number of all that do."""
        if suspects is not None and not len(suspects):
            return ()
        return self._exactly("find_mismatches", suspects, {}).mappings().all()

    def note_stale(self, suspects: Suspects) -> int:
        """Let keys be summed again whose aggregate differs from the log; returns how many."""
        carried: dict[str, Any] = {"added_up": list(suspects.added_up), "noted": list(suspects.is_noted)}
        carried |= suspects.parameters
        return self._execute("note_stale_aggregates", {}, **carried).rowcount

    def _verified_months(self, mode: Mode) -> tuple[Month, ...] | None:
        """The months, if every key that did not change since is known to match; else None."""
        if mode is Mode.FULL or self.run.extent.customers is not None:
            return None
        months = horizons.months_of_extent(self.connection, self.usage, self.run.extent, self.position)
        if months is None:
            return None
        return months if all(self._is_verified(month) for month in months) else None

    def _is_verified(self, month: Month) -> bool:
        return (
            month.verified_below is not None
            and month.counters_verified_below is not None
            and month.verified_seal_id == month.seal_id
            and self.position.next_transaction - month.counters_verified_below < FAR_TRANSACTIONS
        )

    def _marks(self, months: Sequence[Month]) -> dict[str, Any]:
        return {
            "verified_below": str(min(month.verified_below or 0 for month in months)),
            "counters_verified_below": str(min(month.counters_verified_below or 0 for month in months)),
            "most_keys": MOST_KEYS,
        }

    def _find_suspects(self, marks: dict[str, Any], young: Sequence[Sequence[str]]) -> tuple[Suspects, Row[Any]] | None:
        """The suspects among the changed keys, also those of `young` counters (customer, period's start and end)."""
        changed = {
            "customers_changed": [key[0] for key in young],
            "period_starts_changed": [key[1] for key in young],
            "period_ends_changed": [key[2] for key in young],
        }
        look_up_by_index(self.connection)
        horizon = str(self.position.aggregated_below)
        rows = self._execute("find_suspects", self.tables.parts, **marks, **changed, horizon=horizon).all()
        suspects = Suspects.of(rows)
        return None if len(suspects) > MOST_KEYS else (suspects, rows[0])

    def _exactly(self, name: str, suspects: Suspects | None, parts: dict[str, Part], **more: Any) -> Any:
        if suspects is None:
            sum_by_hash(self.connection)
        else:
            look_up_by_index(self.connection)
        given = (suspects or _NONE_GIVEN).parameters
        any_stand_in = self.tables.standing_in(self.usage, self.run.extent)
        compared = "sealed_sums_and_events" if any_stand_in else "events_of_extent_or_given"
        return self._execute(
            name,
            self.tables.parts | parts | {"compared_events": compared},
            every_key=suspects is None,
            most_keys=MOST_KEYS,
            **given,
            **more,
        )

    def _execute(self, name: str, parts: dict[str, Part] | None = None, **more: Any) -> Any:
        settled_below = self.position.settled_below
        settled = {"settled_below": None if settled_below is None else str(settled_below)}
        parameters = self.run.parameters(self.usage, self.tables) | settled | more
        return self.connection.execute(statement(name, parts or {}), parameters)
