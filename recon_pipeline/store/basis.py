"""What a comparison has to look at, so that it costs what changed: the log, every key, the changed keys, or nothing.

Invariant: each choice gives the answer that the whole log would give at the same snapshot; where anything is doubtful
(months not built, another log, a truncation, counters that may have been deleted) it is the next wider one. What
Postgres has counted of changes is some seconds behind: a change that it has not counted yet is looked at by the
next run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.scope import MeteredUsage
from recon_pipeline.store import horizons, ingest_xid
from recon_pipeline.store.billing_tables import BillingTables
from recon_pipeline.store.comparison import Reconciliation
from recon_pipeline.store.horizons import FAR_TRANSACTIONS, Fingerprint, Month, Position
from recon_pipeline.store.statements import statement


class Sums(StrEnum):
    """Where event sums come from.

    Attributes:
        LOG: The log itself, all of it.
        INCREMENTS: What was added up so far, and the events since.
    """

    LOG = "full"
    INCREMENTS = "incremental"


class Look(StrEnum):
    """What is compared.

    Attributes:
        LOG: Every key, its events read from the log.
        EVERY_KEY: Every key, its events from the aggregates and what they do not hold yet.
        CHANGED_KEYS: Keys with a counter or events that were not part of what was verified.
        NOTHING: Neither counters nor events have changed since they were verified.
    """

    LOG = "log"
    EVERY_KEY = "every key"
    CHANGED_KEYS = "changed keys"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Mode:
    """How a run takes event sums.

    Attributes:
        sums: From the log or in increments.
        reason: Why it is the log, or None.
    """

    sums: Sums
    reason: str | None = None


def mode(connection: Connection, tables: BillingTables, *, is_asked_for_full: bool = False) -> Mode:
    """How a run that begins now takes event sums; changes nothing."""
    if is_asked_for_full:
        return Mode(Sums.LOG, "it was asked for")
    if connection.execute(statement("prepared_catalog")).scalar_one_or_none() == tables.catalog_version:
        return Mode(Sums.INCREMENTS)
    for lack in ingest_xid.lacking(connection, request_id_is_unique=tables.request_id_is_unique):
        if lack.rules_out_increments:
            return Mode(Sums.LOG, lack.lacks)
    return Mode(Sums.INCREMENTS)


PARTS = {
    Look.LOG: {"changed_keys": "no_keys", "usage": "usage_from_log", "counters": "counters_of_extent"},
    Look.EVERY_KEY: {
        "changed_keys": "no_keys",
        "usage": "usage_from_aggregates",
        "usage_beside_aggregates": "usage_beside_aggregates",
        "counters": "counters_of_extent",
    },
    Look.CHANGED_KEYS: {
        "changed_keys": "changed_keys",
        "keys_with_news": "keys_with_news",
        "usage": "usage_of_changed",
        "usage_beside_aggregates": "usage_beside_aggregates",
        "counters": "counters_of_changed",
    },
}


@dataclass(frozen=True)
class Basis:
    """What one metered usage is compared by, at one snapshot.

    Attributes:
        look: What is compared.
        position: Where the log stands.
        months: The months of the run, or None where they are not built or not of this log.
        fingerprint: Of the counters, read before the snapshot.
    """

    look: Look
    position: Position
    months: tuple[Month, ...] | None
    fingerprint: Fingerprint

    @property
    def parts(self) -> Mapping[str, str]:
        """The files that stand for the placeholders of a statement."""
        return PARTS[self.look]

    @property
    def parts_after_comparison(self) -> Mapping[str, str]:
        """The same of changed keys after a comparison: counters that had changed need not be found again."""
        return {**self.parts, "changed_keys": "compared_keys"}

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that the parts bind."""
        months = self.months or ()
        return {
            "horizon": str(months[0].horizon) if months else None,
            "verified_below": _lowest(month.verified_below for month in months),
            "counters_verified_below": _lowest(month.counters_verified_below for month in months),
        }

    @property
    def key_count(self) -> int:
        """Keys with events in the months of the run."""
        return sum(month.key_count for month in self.months or ())


def choose(
    connection: Connection,
    run: Reconciliation,
    tables: BillingTables,
    usage: MeteredUsage,
    *,
    sums: Sums,
    fingerprint: Fingerprint,
) -> Basis:
    """What to look at for one metered usage.

    Args:
        connection: In the REPEATABLE READ transaction that will compare.
        run: What is looked at.
        tables: How the tables are shaped.
        usage: One of the run's scope.
        sums: Whether the log can, and may, be read in increments.
        fingerprint: Of the counters, read before this transaction began.
    """
    position = horizons.position(connection, tables)
    months = horizons.months_of_run(connection, run, usage, position)
    if sums is Sums.LOG or months is None:
        return Basis(Look.LOG, position, months, fingerprint)
    basis = Basis(Look.CHANGED_KEYS, position, months, fingerprint)
    if run.extent.customers is not None or not _is_verified(months, position, fingerprint):
        return Basis(Look.EVERY_KEY, position, months, fingerprint)
    if any(month.fingerprint != fingerprint for month in months):
        return basis
    if any(month.verified_below != month.horizon for month in months):
        return basis
    has_news = connection.execute(statement("has_news"), run.parameters(usage, tables) | basis.parameters).scalar_one()
    return basis if has_news else Basis(Look.NOTHING, position, months, fingerprint)


def _is_verified(months: tuple[Month, ...], position: Position, fingerprint: Fingerprint) -> bool:
    """Whether all but what changed since is known to match."""
    return fingerprint.kept is not None and all(
        month.verified_below is not None
        and month.counters_verified_below is not None
        and position.next_transaction - month.counters_verified_below < FAR_TRANSACTIONS
        and month.fingerprint.kept == fingerprint.kept
        for month in months
    )


def _lowest(transactions: Any) -> str | None:
    known = [transaction for transaction in transactions if transaction is not None]
    return str(min(known)) if known else None
