"""Runs the job `backfill_usage_events` in this process, and reads what became of the rows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.orchestrator import failed_checks, failure_of, quietly, run_tags, user_name
from recon_pipeline.faces.reconcile_job import Reconciled
from recon_pipeline.settings import Settings
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.backfill.dry_run import Plan
from recon_pipeline.store.records import runs

if TYPE_CHECKING:
    import dagster as dg


@dataclass(frozen=True)
class BackfillRequest:
    """What a person asks of a backfill.

    Attributes:
        config: Of the asset `backfilled_events`.
        first: First billing month of the run.
        last: Last one, included.
        reconcile: Reconcile the months of the run afterwards.
        approve_reason: Why a repair beyond the budgets is right, or ''.
    """

    config: dict[str, Any]
    first: BillingMonth
    last: BillingMonth
    reconcile: bool
    approve_reason: str


@dataclass(frozen=True)
class Backfilled:
    """How a backfill ended.

    Attributes:
        batch: What became of the rows.
        plan: What would happen, of a dry run, else None.
        reconciled: How the reconciliation ended, or None if there was none.
    """

    batch: Batch
    plan: Plan | None
    reconciled: Reconciled | None


def backfill(settings: Settings, instance: "dg.DagsterInstance", request: BackfillRequest) -> Backfilled:
    """Run the job `backfill_usage_events` and wait for its end.

    Raises:
        ReconError: A source or the database failed; what it says tells what became of the rows before.
    """
    from recon_pipeline.assets.backfilled_events import backfilled_events
    from recon_pipeline.assets.reconciler import close_record
    from recon_pipeline.automation.jobs import PIPELINE, backfill_usage_events
    from recon_pipeline.definitions import defs
    from recon_pipeline.store.backfill import batches
    from recon_pipeline.store.postgres.database import open_database

    quietly()
    user = user_name()
    database = open_database(settings)
    selected = (backfilled_events, *PIPELINE) if request.reconcile else (backfilled_events,)
    result = defs.resolve_job_def(backfill_usage_events.name).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags=run_tags(database, request.first, request.last, user),
        asset_selection=[asset.key for asset in selected],
        run_config={
            "ops": {"backfilled_events": {"config": request.config}},
            "resources": {
                "reconciler": {"config": {"approve_reason": request.approve_reason, "approved_by": user}},
            },
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    failure = failure_of(result)
    close_record(database, result.run_id, "failed", lambda _: None, error=str(failure) if failure else None)
    with database.transaction() as connection:
        batch = batches.of_run(connection, result.run_id)
        record = runs.read(connection, result.run_id)
    if batch is None or batch.outcome != "done":
        raise failure or ReconError(
            f"Run {result.run_id} left no batch.", fix=f"Look at run {result.run_id} in the UI (recon dev)."
        )
    if record is None and failure is not None:
        raise failure
    checks = failed_checks(result.get_asset_check_evaluations())
    return Backfilled(batch, _plan_of(result), None if record is None else Reconciled(record, checks))


def _plan_of(result: "dg.ExecuteInProcessResult") -> Plan | None:
    from recon_pipeline.assets.handover import read_plan

    for event in result.all_events:
        if event.event_type_value == "ASSET_OBSERVATION":
            return read_plan(event.asset_observation_data.asset_observation.metadata)
    return None
