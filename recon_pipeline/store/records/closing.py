"""Closes billing months: seals one, or those that are due, with what only the record of runs and declarations knows."""

import uuid
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth, months_between, require_known
from recon_pipeline.core.scope import Extent, MeteredUsage
from recon_pipeline.settings import Settings, known_months
from recon_pipeline.store.counters import sealing
from recon_pipeline.store.counters.sealing import NotSealedError, Sealed
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.parity.months import record_at_seal
from recon_pipeline.store.postgres.clock import now
from recon_pipeline.store.records.retention import Retention, read_retention
from recon_pipeline.store.sums.run import Reconciliation


def close_month(
    connection: Connection,
    settings: Settings,
    month: BillingMonth,
    *,
    sealed_by: str,
    reason: str | None = None,
    run_id: str | None = None,
) -> tuple[Sealed, ...]:
    """Seal a month of every metered usage of the scope, in one transaction.

    Args:
        connection: Not in a transaction.
        settings: With the scope.
        month: Which.
        sealed_by: Who.
        reason: Why, or None.
        run_id: The run of Dagster's that does it, or None.

    Raises:
        ConfigurationError: No run looks at the month.
        NotSealedError: It cannot be sealed, with the reason.
        ReconError: The log cannot be trusted, or the database failed.
    """
    first, current = known_months()
    require_known([month], first=first, current=current)
    question = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, month, month))
    with decision(connection, "REPEATABLE READ") as tables:
        _require_in_the_log(read_retention(connection), month)
        done = sealing.seal(connection, question, tables, sealed_by=sealed_by, reason=reason, dagster_run_id=run_id)
        for one in done:
            record_at_seal(connection, one.record.usage, month, seal_id=one.record.id)
        return done


def _require_in_the_log(retention: Retention | None, month: BillingMonth) -> None:
    if retention is not None and month.key < retention.before_partition:
        raise NotSealedError(
            f"{month.key} cannot be sealed: {retention}.",
            fix="Nothing: no run compares such a month, and its counters stay as they are.",
        )


def months_due(connection: Connection, scope: Sequence[MeteredUsage], *, after_days: int) -> tuple[BillingMonth, ...]:
    """The known months that ended so many days ago, by the database's clock, and are not sealed; in a transaction."""
    first, current = known_months()
    retention = read_retention(connection)
    if retention is not None:
        first = max(first, BillingMonth.parse(retention.before_partition))
    ended_before = now(connection) - timedelta(days=after_days)
    sealed = {(one.usage, one.month) for one in read_sealed_months(connection)}
    return tuple(
        month
        for month in months_between(first, current)
        if month.end <= ended_before and any((usage, month) not in sealed for usage in scope)
    )
