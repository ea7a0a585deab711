"""Runs the pipeline through Dagster from a shell: in this process, recorded in the instance like every other run."""

import getpass
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from recon_pipeline.core.errors import (
    NOTHING_CHANGED,
    REPAIRS_STAY,
    ConfigurationError,
    DatabaseUnreachableError,
    OrchestratorUnreachableError,
    ReconError,
)
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.embedded_postgres import project_folder
from recon_pipeline.settings import Settings
from recon_pipeline.store.backfill.batches import Batch
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.runs import RunRecord

if TYPE_CHECKING:
    import dagster as dg

    from recon_pipeline.store.postgres.database import BillingDatabase


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
        approve_run: The blocked run whose figures were seen, or '' for the latest.
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


@dataclass(frozen=True)
class FailedCheck:
    """An asset check of the run that did not pass.

    Attributes:
        name: Of the check.
        is_error: Error or warning.
        description: What it said.
    """

    name: str
    is_error: bool
    description: str


@dataclass(frozen=True)
class Reconciled:
    """How a run ended.

    Attributes:
        record: Its figures, as recorded in schema recon.
        failed_checks: What did not pass.
    """

    record: RunRecord
    failed_checks: tuple[FailedCheck, ...]


def use_dagster_home() -> str:
    """Make sure that Dagster finds its `dagster.yaml`; returns the folder.

    Raises:
        ConfigurationError: There is no `dagster.yaml` in DAGSTER_HOME or, where that is unset, the project's folder.
    """
    given = os.environ.get("DAGSTER_HOME")
    home = os.path.abspath(given) if given else str(project_folder())
    if not os.path.exists(os.path.join(home, "dagster.yaml")):
        named = f"DAGSTER_HOME is {given}, which" if given else f"DAGSTER_HOME is not set and {home}"
        raise ConfigurationError(
            f"{named} holds no dagster.yaml: runs would be kept elsewhere, and nobody would find them.",
            mend="Run this in a checkout of the project, or set DAGSTER_HOME to a folder with its dagster.yaml.",
        )
    os.environ["DAGSTER_HOME"] = home
    return home


def require_storage() -> None:
    """Find out at once whether Dagster's storage can be reached; Dagster itself tries for a quarter of a minute.

    Raises:
        OrchestratorUnreachableError: It cannot.
    """
    from recon_pipeline.automation.dagster_url import dagster_url
    from recon_pipeline.store.postgres.database import BillingDatabase

    try:
        with BillingDatabase(dagster_url()).connection(any_schema_version=True):
            pass
    except DatabaseUnreachableError as error:
        raise OrchestratorUnreachableError(
            error.what.replace("The billing database", "Dagster's storage"),
            mend="Check DAGSTER_PG_URL: it names the database that holds Dagster's run history. Then run this again.",
        ) from error


@contextmanager
def open_instance() -> "Iterator[dg.DagsterInstance]":
    """Dagster's instance, for its run history.

    Raises:
        OrchestratorUnreachableError: Its storage cannot be reached, or was lost while the block used it.
    """
    import dagster as dg
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    use_dagster_home()
    changed = NOTHING_CHANGED
    try:
        with dg.DagsterInstance.get() as instance:
            changed = REPAIRS_STAY
            yield instance
    except (DagsterPostgresException, SQLAlchemyError) as error:
        raise OrchestratorUnreachableError(
            f"Dagster's storage cannot be reached, or it refused a statement: {_first_cause(error)}",
            changed=changed,
            mend="Check DAGSTER_PG_URL: it names the database that holds Dagster's run history. Then run this again.",
        ) from error


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
    plan: dict[str, Any] | None
    reconciled: Reconciled | None


def backfill(settings: Settings, instance: "dg.DagsterInstance", request: BackfillRequest) -> Backfilled:
    """Run the job `backfill_usage_events` and wait for its end.

    Raises:
        ReconError: A source or the database failed; what it says tells what became of the rows before.
    """
    from recon_pipeline.assets.backfilled_events import backfilled_events
    from recon_pipeline.assets.reconciler import close_record, open_database
    from recon_pipeline.automation.jobs import PIPELINE, backfill_usage_events
    from recon_pipeline.definitions import defs
    from recon_pipeline.store.backfill import batches

    quietly()
    user = user_name()
    database = open_database(settings)
    selected = (backfilled_events, *PIPELINE) if request.reconcile else (backfilled_events,)
    result = defs.resolve_job_def(backfill_usage_events.name).execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags=_tags(database, request.first, request.last, user),
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
    close_record(database, result.run_id, "failed", lambda _: None)
    with database.transaction() as connection:
        batch = batches.of_run(connection, result.run_id)
        record = runs.read(connection, result.run_id)
    if batch is None or batch.outcome != "done":
        raise failure or ReconError(
            f"Run {result.run_id} left no batch.", mend=f"Look at run {result.run_id} in the UI (recon dev)."
        )
    if record is None and failure is not None:
        raise failure
    checks = _failed_checks(result.get_asset_check_evaluations())
    return Backfilled(batch, _plan_of(result), None if record is None else Reconciled(record, checks))


def _plan_of(result: "dg.ExecuteInProcessResult") -> dict[str, Any] | None:
    for event in result.all_events:
        if event.event_type_value == "ASSET_OBSERVATION":
            plan = event.asset_observation_data.asset_observation.metadata.get("plan")
            return None if plan is None else cast("dict[str, Any]", plan.value)
    return None


def reconcile(settings: Settings, instance: "dg.DagsterInstance", request: Request) -> Reconciled:
    """Run the job `reconcile` for a contiguous range of months and wait for its end.

    Raises:
        ReconError: The database cannot be reached; or it was lost, and the run ended without a record.
    """
    from recon_pipeline.assets.reconciler import close_record, open_database
    from recon_pipeline.automation.jobs import LANE_TAG, PIPELINE
    from recon_pipeline.automation.jobs import reconcile as job
    from recon_pipeline.definitions import defs

    quietly()
    selected = PIPELINE[:-1] if request.dry_run else PIPELINE
    user = user_name()
    database = open_database(settings)
    tags = _tags(database, request.first, request.last, user)
    if request.lane:
        tags[LANE_TAG] = request.lane
    config = {
        "customers": list(request.customers),
        "full": request.full,
        "while_paused": request.while_paused,
        "approve_reason": request.approve_reason,
        "approve_run": request.approve_run,
        "approved_by": user,
    }
    result = defs.resolve_job_def(job.name).execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_id=request.run_id,
        tags=tags,
        asset_selection=[asset.key for asset in selected],
        run_config={
            "resources": {"reconciler": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    outcome = "compared" if result.success else "failed"
    try:
        close_record(database, result.run_id, outcome, lambda _: None)
        with database.transaction() as connection:
            record = runs.read(connection, result.run_id)
    except ReconError as error:
        raise failure_of(result) or error from error
    if record is None:
        raise failure_of(result) or ReconError(
            f"Run {result.run_id} left no record.", mend=f"Look at run {result.run_id} in the UI (recon dev)."
        )
    return Reconciled(record, _failed_checks(result.get_asset_check_evaluations()))


def _tags(database: "BillingDatabase", first: BillingMonth, last: BillingMonth, user: str) -> dict[str, str]:
    from recon_pipeline.assets.months import range_tags
    from recon_pipeline.automation.own_runs import own_tag

    with database.transaction() as connection:
        return {**range_tags(first, last), **own_tag(connection), "user": user}


def quietly() -> None:
    """Let Dagster's own log, and its warnings about what may change, not stand between a person and the answer."""
    import dagster as dg

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)


def _failed_checks(evaluations: "Sequence[dg.AssetCheckEvaluation]") -> tuple[FailedCheck, ...]:
    return tuple(
        FailedCheck(one.check_name, one.severity.name == "ERROR", one.description or "")
        for one in evaluations
        if not one.passed
    )


def failure_of(result: "dg.ExecuteInProcessResult") -> ReconError | None:
    """Why the run failed, in the words of the step that did, or of Dagster where none had begun."""
    mend = f"Look at run {result.run_id} in the UI (recon dev)."
    for event in result.all_events:
        if event.is_step_failure:
            told, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            said = (told and told.description) or (error and error.message) or "no reason was given"
            return ReconError.told_as(said) or ReconError(
                f"Run {result.run_id} failed in {event.step_key}: {said.strip()}", changed=REPAIRS_STAY, mend=mend
            )
    for event in result.all_events:
        if event.is_run_failure:
            error = event.job_failure_data.error
            said = (error and error.message) or event.message or "no reason was given"
            return ReconError(f"Run {result.run_id} failed: {said.strip()}", changed=REPAIRS_STAY, mend=mend)
    return None


def _first_cause(error: BaseException) -> str:
    """What the driver said, below the exceptions that were made of it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def user_name() -> str:
    """Who runs this; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
