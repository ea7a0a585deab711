"""Runs the job `backfill_usage_events` in this process, and reads the outcomes of the rows."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from recon_pipeline.assets.backfilled_events import Backfill, on_progress
from recon_pipeline.assets.handover import read_preview, read_unread
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.run_record import close_record
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.definitions import defs
from recon_pipeline.faces.backfilled import Backfilled
from recon_pipeline.faces.orchestrator import SILENT, error_of, failed_checks, open_instance, quietly, run_tags
from recon_pipeline.faces.reconciled import Reconciled
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings, read_name
from recon_pipeline.sources.names import Unread
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.backfill.dry_run import Preview
from recon_pipeline.store.backfill.load import OnProgress
from recon_pipeline.store.log.sealed_months import read_sealed_months
from recon_pipeline.store.postgres.database import open_database
from recon_pipeline.store.records import runs


@dataclass(frozen=True)
class BackfillRequest:
    """What a person asks of a backfill.

    Attributes:
        source: Files, globs, folders, URLs, tables, queries.
        mapping: Which column is what; empty for none.
        periods: Only these months, by partition key; empty for all of the run.
        dry_run: Insert nothing.
        first: First billing month of the run.
        last: Last one, included.
        reconcile: Reconcile the months of the run afterwards.
        approve_reason: Why a repair beyond the budgets is right, or ''.
    """

    source: tuple[str, ...]
    mapping: dict[str, Any]
    periods: tuple[str, ...]
    dry_run: bool
    first: BillingMonth
    last: BillingMonth
    reconcile: bool
    approve_reason: str


def backfill(settings: Settings, request: BackfillRequest, report_progress: OnProgress) -> Backfilled:
    """Run the job `backfill_usage_events` and wait for its end.

    Args:
        settings: Name the database.
        request: What is asked.
        report_progress: Is called as the rows are read.

    Raises:
        ReconError: A source or the database failed; the error says which rows are done.
    """
    token = on_progress.set(report_progress)
    try:
        with open_instance() as instance:
            return _backfill(settings, instance, request)
    finally:
        on_progress.reset(token)


def _backfill(settings: Settings, instance: dg.DagsterInstance, request: BackfillRequest) -> Backfilled:
    quietly()
    user = user_name()
    database = open_database(settings)
    names = Names(read_name())
    backfilled = names.key("backfilled_events")
    config = Backfill(
        source=list(request.source),
        mapping=request.mapping,
        periods=list(request.periods),
        dry_run=request.dry_run,
    )
    result = defs.resolve_job_def(names.of("backfill_usage_events")).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags=run_tags(database, request.first, request.last, user),
        asset_selection=[backfilled, *names.pipeline] if request.reconcile else [backfilled],
        run_config=dg.RunConfig(
            ops={backfilled.to_python_identifier(): config},
            resources={names.reconciler: Reconciler(approve_reason=request.approve_reason, approved_by=user)},
            loggers=SILENT,
        ),
    )
    error = error_of(result)
    close_record(database, result.run_id, "failed", lambda _: None, error=str(error) if error else None)
    with database.transaction() as connection:
        batch = batches.of_run(connection, result.run_id)
        record = runs.read(connection, result.run_id)
        sealed = {one.month.key for one in read_sealed_months(connection) if one.usage in settings.scope}
    if batch is None or batch.outcome != "done":
        raise error or ReconError(
            f"Run {result.run_id} left no batch.", fix=f"Look at run {result.run_id} in the UI (recon dev)."
        )
    if record is None and error is not None:
        raise error
    checks = failed_checks(result.get_asset_check_evaluations())
    reconciled = None if record is None else Reconciled(record, checks)
    of_batch = tuple(month for month in batch.partitions if month in sealed)
    return Backfilled(batch, _preview_of(result), reconciled, _unread_of(result, backfilled), of_batch)


def _preview_of(result: dg.ExecuteInProcessResult) -> Preview | None:
    for event in result.all_events:
        if event.event_type_value == "ASSET_OBSERVATION":
            return read_preview(event.asset_observation_data.asset_observation.metadata)
    return None


def _unread_of(result: dg.ExecuteInProcessResult, backfilled: dg.AssetKey) -> tuple[Unread, ...]:
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION" and event.asset_key == backfilled:
            return read_unread(event.materialization.metadata)
        if event.event_type_value == "ASSET_OBSERVATION":
            return read_unread(event.asset_observation_data.asset_observation.metadata)
    return ()
