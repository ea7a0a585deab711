"""The metrics of a run, written into its record as soon as they are known.

Invariant: they come from what is stored (drift outcomes, ledger), so they are true also after a crash.
"""

import json
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import Connection, TextClause

from recon_pipeline.core.guards import DriftSummary
from recon_pipeline.store.counters.compare import Compared
from recon_pipeline.store.counters.events_left import EventsLeft
from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.quality import LogQuality

# Writes the log's metrics into the record of a run.
# Invariant: touches no other metric of the run.
# Binds: dedupe_count bigint, events_scanned bigint, run_id text
_NOTE_EVENTS = labelled(
    "note_events",
    """
    update recon.reconciliation_run
    set events_scanned = :events_scanned, dedupe_count = :dedupe_count
    where run_id = :run_id
    """,
)
# Records what a comparison saw, and how many aggregates it found wrong.
# Binds: below xid8, run_id text, stale integer
_NOTE_COMPARED = labelled(
    "note_compared",
    """
    update recon.reconciliation_run
    set
        compared_below = cast(:below as xid8),
        aggregates_differing = case
            when :stale > 0 then coalesce(aggregates_differing, 0) + :stale
            else aggregates_differing
        end
    where run_id = :run_id
    """,
)
# The transaction below which a run's comparison saw everything.
# Binds: run_id text
_READ_COMPARED_BELOW = labelled(
    "read_compared_below", "select compared_below::text from recon.reconciliation_run where run_id = :run_id"
)
# Writes the comparison's metrics into the record of a run.
# Invariant: transitions are those foreseen, until repairs are counted.
# Binds: counters_scanned bigint, drift_by_kind jsonb, drift_count bigint, doubtful bigint, held bigint
# Binds: over_quota_transitions bigint, run_id text, under_quota_transitions bigint
_NOTE_DRIFT = labelled(
    "note_drift",
    """
    update recon.reconciliation_run
    set
        counters_scanned = :counters_scanned,
        drift_count = :drift_count,
        drift_by_kind = cast(:drift_by_kind as jsonb),
        over_quota_transitions = :over_quota_transitions,
        under_quota_transitions = :under_quota_transitions,
        rows_repaired = 0,
        deferred_count = 0,
        held_count = :held,
        doubtful_count = :doubtful,
        reconcile_failures = 0
    where run_id = :run_id
    """,
)
# Records the counters that a run left alone because events left the log.
# Binds: months jsonb, run_id text
_NOTE_EVENTS_LEFT = labelled(
    "note_events_left",
    "update recon.reconciliation_run set events_left_the_log = cast(:months as jsonb) where run_id = :run_id",
)
# Writes the repairs into the record of a run.
# Invariant: metrics are read from drift outcomes and ledger, so they are true after a crash as well.
# Binds: deferred bigint, doubtful bigint, failed bigint, held bigint, over_quota_transitions bigint
# Binds: paused_reason text, repaired bigint, run_id text, under_quota_transitions bigint
_NOTE_REPAIRS = labelled(
    "note_repairs",
    """
    update recon.reconciliation_run
    set
        rows_repaired = :repaired,
        deferred_count = :deferred,
        reconcile_failures = :failed,
        held_count = :held,
        doubtful_count = :doubtful,
        paused_reason = :paused_reason,
        over_quota_transitions = :over_quota_transitions,
        under_quota_transitions = :under_quota_transitions
    where run_id = :run_id
    """,
)
# Writes the metrics of the aggregates into the record of a run.
# Invariant: touches no other metric of the run.
# Binds: aggregates_differing bigint, rebuilt_because text, run_id text
_NOTE_AGGREGATES = labelled(
    "note_aggregates",
    """
    update recon.reconciliation_run
    set
        rebuilt_because = coalesce(:rebuilt_because, rebuilt_because),
        aggregates_differing = coalesce(:aggregates_differing, aggregates_differing)
    where run_id = :run_id
    """,
)


def note_events(connection: Connection, run_id: str, quality: LogQuality) -> None:
    """Write the log's metrics."""
    _write(connection, _NOTE_EVENTS, run_id, quality)


def note_aggregates(
    connection: Connection, run_id: str, *, rebuilt_because: str | None = None, aggregates_differing: int | None = None
) -> None:
    """Write the metrics of the aggregates; None leaves a metric as it is."""
    metrics = {"rebuilt_because": rebuilt_because, "aggregates_differing": aggregates_differing}
    connection.execute(_NOTE_AGGREGATES, {"run_id": run_id, **metrics})


def note_drift(connection: Connection, run_id: str, summary: DriftSummary) -> None:
    """Write the comparison's metrics."""
    metrics = {"drift_count": summary.drift_count, "drift_by_kind": json.dumps(summary.by_kind)}
    _write(connection, _NOTE_DRIFT, run_id, summary, **metrics)


def note_events_left(connection: Connection, run_id: str, left: EventsLeft) -> None:
    """Write what left the log and which counters were left alone, by month."""
    months = json.dumps([asdict(month) for month in left.months])
    connection.execute(_NOTE_EVENTS_LEFT, {"run_id": run_id, "months": months})


def note_compared(connection: Connection, run_id: str, compared: Compared) -> None:
    """Write below which transaction the comparison saw everything, and how many aggregates were wrong."""
    connection.execute(
        _NOTE_COMPARED,
        {"run_id": run_id, "below": str(compared.below), "stale": compared.stale_aggregates},
    )


def compared_below(connection: Connection, run_id: str) -> int | None:
    """The run's comparison saw everything from transactions below this one; None if it made no comparison."""
    found = connection.execute(_READ_COMPARED_BELOW, {"run_id": run_id}).scalar_one_or_none()
    return None if found is None else int(found)


def note_repairs(connection: Connection, run_id: str, outcome: RepairOutcome) -> None:
    """Write the metrics of the repairs."""
    _write(connection, _NOTE_REPAIRS, run_id, outcome, paused_reason=outcome.paused_reason)


def _write(connection: Connection, update: TextClause, run_id: str, metrics: Any, **more: Any) -> None:
    values = {field.name: getattr(metrics, field.name) for field in fields(metrics)}
    connection.execute(update, {"run_id": run_id, **values, **more})
