"""Closes the record of a run: once, with what the run repaired, however it ended."""

import json
from collections.abc import Callable

from recon_pipeline.store.counters import repair
from recon_pipeline.store.postgres.database import BillingDatabase, begin
from recon_pipeline.store.records import run_metrics, runs

_ENDED_EARLY = ("failed", "put_off")
_METRICS = ("drift_count", "dedupe_count", "reconcile_failures", "over_quota_transitions")


def close_record(
    database: BillingDatabase,
    run_id: str,
    outcome: str,
    log: Callable[[str], None],
    *,
    mismatch_count: int | None = None,
    error: str | None = None,
) -> None:
    """Close the record of a run if it is open, and log its metrics as one structured line."""
    if outcome in _ENDED_EARLY:
        _note_whole_chunks(database, run_id)
    with database.transaction() as connection:
        if not runs.finish(connection, run_id, outcome, mismatch_count=mismatch_count, error=error):
            return
        record = runs.read(connection, run_id)
    if record is not None:
        figures = {name: getattr(record, name) for name in _METRICS}
        line = {
            "event": "reconcile_metrics",
            "run_id": run_id,
            "outcome": record.outcome,
            "mode": record.mode,
            "partitions": [record.first_partition, record.last_partition],
            **figures,
            "rows_repaired": record.rows_repaired,
            "duration_ms": round(record.duration_ms),
        }
        log(json.dumps(line))


def _note_whole_chunks(database: BillingDatabase, run_id: str) -> None:
    """Note in the open record of a run that ended early what it had repaired until then, as the ledger says."""
    with database.connection() as connection:
        with begin(connection):
            record = runs.read(connection, run_id)
            is_missing = record is not None and record.outcome == "running" and not record.rows_repaired
            if not is_missing or not runs.has_repaired(connection, run_id):
                return
        outcome = repair.summarize(connection, run_id)
        with begin(connection):
            run_metrics.note_repairs(connection, run_id, outcome)
