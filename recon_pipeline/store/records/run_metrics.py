"""The metrics of a run and its approval, written into its record as soon as they are known.

Invariant: metrics come from what is stored (drift outcomes, ledger), so they are true also after a crash.
"""

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection

from recon_pipeline.core.guards import DriftSummary
from recon_pipeline.store.counters.compare import Compared
from recon_pipeline.store.counters.events_left import EventsLeft
from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline.store.postgres.statements import labelled
from recon_pipeline.store.sums.quality import LogQuality

# Writes columns of the record of a run: those that are named; the others stay as they are.
# Index: the primary key of recon.reconciliation_run.
# Binds: columns jsonb, run_id text
_NOTE = labelled(
    "note_run",
    """
    update recon.reconciliation_run as run
    set (
        rebuilt_because, events_scanned, dedupe_count, counters_scanned, drift_count, drift_by_kind,
        rows_repaired, deferred_count, held_count, doubtful_count, reconcile_failures, aggregates_differing,
        over_quota_transitions, under_quota_transitions, events_left_the_log, paused_reason,
        approved_by, approved_reason, approved_run_id
    ) = (
        select
            rebuilt_because, events_scanned, dedupe_count, counters_scanned, drift_count, drift_by_kind,
            rows_repaired, deferred_count, held_count, doubtful_count, reconcile_failures, aggregates_differing,
            over_quota_transitions, under_quota_transitions, events_left_the_log, paused_reason,
            approved_by, approved_reason, approved_run_id
        from jsonb_populate_record(run, cast(:columns as jsonb))
    )
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


def note_events(connection: Connection, run_id: str, quality: LogQuality) -> None:
    """Write the log's metrics."""
    _note(connection, run_id, events_scanned=quality.events_scanned, dedupe_count=quality.dedupe_count)


def note_aggregates(
    connection: Connection, run_id: str, *, rebuilt_because: str | None = None, aggregates_differing: int | None = None
) -> None:
    """Write the metrics of the aggregates; None leaves a metric as it is."""
    metrics = {"rebuilt_because": rebuilt_because, "aggregates_differing": aggregates_differing}
    _note(connection, run_id, **{name: value for name, value in metrics.items() if value is not None})


def note_drift(connection: Connection, run_id: str, summary: DriftSummary) -> None:
    """Write the comparison's metrics. Transitions are those foreseen, until repairs are counted."""
    _note(
        connection,
        run_id,
        counters_scanned=summary.counters_scanned,
        drift_count=summary.drift_count,
        drift_by_kind=summary.by_kind,
        over_quota_transitions=summary.over_quota_transitions,
        under_quota_transitions=summary.under_quota_transitions,
        rows_repaired=0,
        deferred_count=0,
        held_count=summary.held,
        doubtful_count=summary.doubtful,
        reconcile_failures=0,
    )


def note_events_left(connection: Connection, run_id: str, left: EventsLeft) -> None:
    """Write what left the log and which counters were left alone, by month."""
    _note(connection, run_id, events_left_the_log=[asdict(month) for month in left.months])


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
    _note(
        connection,
        run_id,
        rows_repaired=outcome.repaired,
        deferred_count=outcome.deferred,
        reconcile_failures=outcome.failed,
        held_count=outcome.held,
        doubtful_count=outcome.doubtful,
        paused_reason=outcome.paused_reason,
        over_quota_transitions=outcome.over_quota_transitions,
        under_quota_transitions=outcome.under_quota_transitions,
    )


def note_approval(
    connection: Connection, run_id: str, *, approved_by: str, reason: str, approved_run_id: str | None = None
) -> None:
    """Record who approved the repairs, why, and which blocked run showed the figures; before the first repair."""
    shown = {} if approved_run_id is None else {"approved_run_id": approved_run_id}
    _note(connection, run_id, approved_by=approved_by, approved_reason=reason, **shown)


def _note(connection: Connection, run_id: str, **columns: Any) -> None:
    """Write columns of the record of a run, each a value that JSON has; the others stay as they are."""
    connection.execute(_NOTE, {"run_id": run_id, "columns": json.dumps(columns)})
