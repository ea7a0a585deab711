"""Which billing months a tick covers, and which are verified."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.store.counters import remembered_doubt
from recon_pipeline.store.counters.verify import Verification
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.log.row_security import see_every_row
from recon_pipeline.store.log.tables import EVENTS
from recon_pipeline.store.postgres.planning import look_up_by_index
from recon_pipeline.store.postgres.statements import statement
from recon_pipeline.store.records.retention import read_retention
from recon_pipeline.store.sums import horizons
from recon_pipeline.store.sums.aggregates import is_ours_to_write
from recon_pipeline.store.sums.modes import Mode
from recon_pipeline.store.sums.run import Reconciliation

OVERLAP_MINUTES = 60
"""In full mode, a transaction that was open for longer than this when a month was verified is left to the nightly
audit."""

_REASONS = {outcome: outcome for outcome in ("untouched", "deferred", "failed", "held", "doubtful")}
"""Why a key is open, by what the run did with it; any other was found by the last check."""


def months_to_reconcile(
    connection: Connection, extent: Extent, tables: BillingTables, *, recent_days: int | None, mode: Mode
) -> tuple[BillingMonth, ...]:
    """Months with a period that is open or ended lately, and older ones that were touched since they were verified.

    Args:
        connection: In a transaction.
        extent: All known months; those that are declared to be no longer in the log are left out.
        tables: How the tables are shaped.
        recent_days: How long a period stays in every tick after its end; None: only months that were touched.
        mode: Whether the log can be read in increments; then only what is new in it is read.
    """
    retention = read_retention(connection)
    if retention is not None:
        extent = replace(extent, first=max(extent.first, BillingMonth.parse(retention.before_partition)))
    parameters: dict[str, Any] = {
        "gateway_names": [usage.gateway_name for usage in extent.scope],
        "usage_types": [usage.usage_type for usage in extent.scope],
        "start": extent.start,
        "end": extent.end,
        "recent_days": recent_days,
    }
    if mode is Mode.INCREMENTAL:
        horizon = horizons.position(connection, tables).aggregated_below
        look_up_by_index(connection)
        parameters |= {"partitions": [month.key for month in extent.months]}
        parameters |= {"horizon": None if horizon is None else str(horizon)}
        rows = connection.execute(statement("months_with_news"), parameters)
    else:
        rows = connection.execute(statement("months_to_reconcile"), parameters | {"overlap_minutes": OVERLAP_MINUTES})
    return tuple(BillingMonth.parse(key) for key in rows.scalars())


def note_verified(connection: Connection, run: Reconciliation, tables: BillingTables, answer: Verification) -> bool:
    """Record that all keys but open ones matched, and which are open; nothing for a run over some customers only.

    Args:
        connection: In a READ COMMITTED transaction of its own, which the caller commits.
        run: What the run covered.
        tables: How the tables are shaped.
        answer: Of the last check.

    Returns:
        Whether it was recorded: not while another run writes aggregates, months or open keys, and not if everything was
        rebuilt since the check, from a log that may be another one.
    """
    if run.extent.customers is not None or not is_ours_to_write(connection, tables):
        return False
    if answer.known_since not in (None, horizons.position(connection, tables).known_since):
        return False
    see_every_row(connection, EVENTS)
    remembered_doubt.note(connection, run.run_id)  # the repair may have found some
    for verified in answer.verified:
        parameters = run.parameters(verified.usage, tables)
        mismatches = verified.mismatches
        connection.execute(
            statement("note_open_keys"),
            parameters
            | {
                "seen_below": str(verified.seen_below),
                "settled_below": None if answer.settled_below is None else str(answer.settled_below),
                "open_customers": [key.gateway_customer_id for key in mismatches],
                "open_period_starts": [key.period_start for key in mismatches],
                "open_period_ends": [key.period_end for key in mismatches],
                "open_reasons": [_REASONS.get(key.outcome, "drifted") for key in mismatches],
                "open_errors": [key.error or None for key in mismatches],
            },
        )
        connection.execute(
            statement("note_verified"),
            parameters
            | {
                "partitions": [month.key for month in run.extent.months],
                "verified_seal_ids": [verified.seal_ids.get(month.key) for month in run.extent.months],
                "verified_below": None if verified.events_below is None else str(verified.events_below),
                "counters_verified_below": None if verified.events_below is None else str(verified.counters_below),
            },
        )
    return True
