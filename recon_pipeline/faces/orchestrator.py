"""Dagster as a shell uses it: its instance, and what a run in this process reports.

Invariant: such a run is recorded in the instance like every other one.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from recon_pipeline.assets import by_month
from recon_pipeline.assets.handover import read_error
from recon_pipeline.assets.months import range_tags
from recon_pipeline.automation.dagster_url import is_used_by
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.core.errors import (
    NOTHING_CHANGED,
    REPAIRS_STAY,
    OrchestratorUnreachableError,
    ReconError,
    driver_reason,
)
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.faces.dagster_home import check_storage, use_dagster_home
from recon_pipeline.faces.reconciled import FailedCheck
from recon_pipeline.faces.unloadable import unloadable
from recon_pipeline.store.postgres.database import BillingDatabase

SILENT: dict[str, Any] = {"console": {"config": {"log_level": "CRITICAL"}}}
"""The loggers of a run that prints nothing."""

Part = Literal["compute log manager", "run launcher", "run coordinator"]

_INTERRUPTED = "DagsterExecutionInterruptedError"


@contextmanager
def open_records() -> Iterator[dg.DagsterInstance]:
    """Dagster's instance with its storage, for its run history.

    Raises:
        ConfigurationError: Its `dagster.yaml` cannot be loaded.
        OrchestratorUnreachableError: Its storage cannot be reached, or was lost while the block used it.
    """
    home = use_dagster_home()
    is_used_by(home)  # reads the file, and says where it is no YAML
    changed = NOTHING_CHANGED
    try:
        with _loaded(home) as instance:
            changed = REPAIRS_STAY
            yield instance
    except (DagsterPostgresException, SQLAlchemyError) as error:
        raise OrchestratorUnreachableError(
            f"Dagster's storage cannot be reached, or it refused a statement: {_first_cause(error)}",
            changed=changed,
            fix=check_storage(),
        ) from error


@contextmanager
def open_instance() -> Iterator[dg.DagsterInstance]:
    """The same with all that a run in this process needs.

    Raises:
        ReconError: Like `open_records`.
    """
    with open_records() as instance:
        load_part(instance, "compute log manager")
        load_part(instance, "run coordinator")
        yield instance


def load_part(instance: dg.DagsterInstance, part: Part) -> object:
    """A part of the instance, loaded as a run does; Dagster loads each when it is used first.

    Args:
        instance: Of Dagster.
        part: Which one, besides the storage.

    Raises:
        ConfigurationError: It cannot be loaded.
    """
    try:
        return getattr(instance, part.replace(" ", "_"))
    except Exception as error:  # the file names classes of anybody
        raise unloadable(f"Dagster's {part}", f"{use_dagster_home()}/dagster.yaml", error) from error


def _loaded(home: str) -> dg.DagsterInstance:
    try:
        return dg.DagsterInstance.get()
    except (DagsterPostgresException, DBAPIError, ReconError):
        raise
    except Exception as error:  # the file names classes of anybody
        raise unloadable("Dagster's instance", f"{home}/dagster.yaml", error) from error


def run_tags(database: BillingDatabase, first: BillingMonth, last: BillingMonth, user: str) -> dict[str, str]:
    """The tags of a run over these months: which they are, that it is ours, and who asked for it."""
    with database.transaction() as connection:
        return {**range_tags(first, last), **own_tag(connection), "user": user}


def quietly() -> None:
    """Keep Dagster's own log, and its warnings about what may change, off the terminal."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)


def failed_checks(evaluations: Sequence[dg.AssetCheckEvaluation]) -> tuple[FailedCheck, ...]:
    """Those checks among the evaluations that did not pass, each once, with what they say of each month."""
    failed: dict[str, list[dg.AssetCheckEvaluation]] = {}
    for one in evaluations:
        if not one.passed:
            failed.setdefault(one.check_name, []).append(one)
    return tuple(
        FailedCheck(
            name,
            any(one.severity is dg.AssetCheckSeverity.ERROR for one in of_check),
            by_month.in_words(one.description for one in of_check),
        )
        for name, of_check in failed.items()
    )


def error_of(result: dg.ExecuteInProcessResult) -> ReconError | None:
    """Why the run failed: the error that its step reported, else what Dagster says; None if it did not fail."""
    fix = f"Look at run {result.run_id} in the UI (recon dev)."
    for event in result.all_events:
        if event.is_step_failure:
            reported, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            where = f" in {event.step_key}"
        elif event.is_run_failure:
            reported, error, where = None, event.job_failure_data.error, ""
        else:
            continue
        if error is not None and _INTERRUPTED in (error.cls_name or error.message):
            return ReconError(
                f"Run {result.run_id} was interrupted, by Ctrl-C or SIGTERM.",
                changed=REPAIRS_STAY,
                fix="Start it again when you like: it continues with what is left.",
            )
        reason = (reported and reported.description) or (error and error.message) or "no reason was given"
        return (read_error(reported.metadata) if reported else None) or ReconError(
            f"Run {result.run_id} failed{where}: {reason.strip()}", changed=REPAIRS_STAY, fix=fix
        )
    return None


def _first_cause(error: BaseException) -> str:
    """The driver's message, below the exceptions that were raised from it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return driver_reason(str(error)) or type(error).__name__
