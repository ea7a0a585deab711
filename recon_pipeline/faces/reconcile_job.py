"""Runs the job `reconcile` in this process, and reads how the run ended."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.run_record import close_record
from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.core.scope import Extent
from recon_pipeline.definitions import defs
from recon_pipeline.faces.console import err
from recon_pipeline.faces.orchestrator import SILENT, error_of, failed_checks, open_instance, quietly, run_tags
from recon_pipeline.faces.reconciled import Reconciled
from recon_pipeline.faces.user import user_name
from recon_pipeline.settings import Settings, read_name
from recon_pipeline.store.counters import compare, lost_log
from recon_pipeline.store.counters.compare import DriftedKey
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase, open_database
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline.store.sums.run import Reconciliation


@dataclass(frozen=True)
class Request:
    """What a person asks of one run.

    Attributes:
        first: First billing month.
        last: Last billing month, included.
        customers: Only these, or all if empty.
        dry_run: Compare and check the guards, repair nothing.
        full: Take sums from the log itself, and check the stored ones against it.
        while_paused: Repair although repairs are paused.
        approve_reason: Why a repair beyond the budgets is right, or ''.
        approve_run: The run whose figures were seen, or '' for the latest.
        run_id: The run's id, or None for a new one.
        lane: Names runs of one kind in their tags, or None.
    """

    first: BillingMonth
    last: BillingMonth
    customers: tuple[str, ...] = ()
    dry_run: bool = False
    full: bool = False
    while_paused: bool = False
    approve_reason: str = ""
    approve_run: str = ""
    run_id: str | None = None
    lane: str | None = None


def reconcile_each(settings: Settings, requests: Sequence[Request]) -> tuple[Reconciled, ...]:
    """Run the job for each request, one after the other.

    Raises:
        ReconError: As `reconcile` does, or Dagster's storage cannot be used.
    """
    ended: list[Reconciled] = []
    with open_instance() as instance:
        for request in requests:
            with err.status(f"Reconciling {request.first.key} to {request.last.key} …"):
                ended.append(reconcile(settings, instance, request))
    return tuple(ended)


def reconcile(settings: Settings, instance: dg.DagsterInstance, request: Request) -> Reconciled:
    """Run the job `reconcile` for a contiguous range of months and wait for its end.

    Raises:
        ReconError: The database cannot be reached; or it was lost, and the run ended without a record.
    """
    quietly()
    names = Names(read_name())
    selected = names.pipeline[:-1] if request.dry_run else names.pipeline
    user = user_name()
    database = open_database(settings)
    tags = run_tags(database, request.first, request.last, user)
    if request.lane:
        tags[LANE_TAG] = names.lane(request.lane)
    asked = Reconciler(
        customers=list(request.customers),
        full=request.full,
        while_paused=request.while_paused,
        approve_reason=request.approve_reason,
        approve_run=request.approve_run,
        approved_by=user,
    )
    result = defs.resolve_job_def(names.of("reconcile")).execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_id=request.run_id,
        tags=tags,
        asset_selection=selected,
        run_config=dg.RunConfig(resources={names.reconciler: asked}, loggers=SILENT),
    )
    outcome, failure = "compared" if result.success else "failed", error_of(result)
    try:
        close_record(database, result.run_id, outcome, lambda _: None, error=str(failure) if failure else None)
        with database.transaction() as connection:
            record = runs.read(connection, result.run_id)
        # What was changed is in the ledger; of what was not, people ask which keys it is about.
        largest = _left_alone(database, settings, record) if record is not None else ()
    except ReconError as error:
        raise failure or error from error
    if record is None:
        raise failure or ReconError(
            f"Run {result.run_id} left no record.", fix=f"Look at run {result.run_id} in the UI (recon dev)."
        )
    return Reconciled(record, failed_checks(result.get_asset_check_evaluations()), largest)


def _left_alone(database: BillingDatabase, settings: Settings, record: RunRecord) -> tuple[DriftedKey, ...]:
    if record.is_preview and record.drift_count is None:  # the log was lost, so nothing was compared
        first, last = map(BillingMonth.parse, (record.first_partition, record.last_partition))
        extent = Extent(settings.scope, first, last, tuple(record.customers) if record.customers else None)
        with database.connection() as connection, decision(connection, "READ COMMITTED") as tables:
            return lost_log.largest(connection, Reconciliation.of(settings, record.run_id, extent), tables)
    with database.transaction() as connection:
        if record.is_preview:
            return compare.sample(connection, record.run_id)
        if record.events_left_the_log:
            return compare.sample(connection, record.run_id, outcomes=("doubtful",))
    return ()
