"""Dagster as a shell uses it: its home, storage and instance, and what a run in this process has to say.

Invariant: such a run is recorded in the instance like every other one.
"""

import getpass
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import dagster as dg

    from recon_pipeline.store.postgres.database import BillingDatabase

_INTERRUPTED = "DagsterExecutionInterruptedError"


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
            fix="Run this in a checkout of the project, or set DAGSTER_HOME to a folder with its dagster.yaml.",
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
            fix="Check DAGSTER_PG_URL: it names the database that holds Dagster's run history. Then run this again.",
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
            fix="Check DAGSTER_PG_URL: it names the database that holds Dagster's run history. Then run this again.",
        ) from error


def run_tags(database: "BillingDatabase", first: BillingMonth, last: BillingMonth, user: str) -> dict[str, str]:
    """The tags of a run over these months: which they are, that it is ours, and who asked for it."""
    from recon_pipeline.assets.months import range_tags
    from recon_pipeline.automation.own_runs import own_tag

    with database.transaction() as connection:
        return {**range_tags(first, last), **own_tag(connection), "user": user}


def quietly() -> None:
    """Let Dagster's own log, and its warnings about what may change, not stand between a person and the answer."""
    import dagster as dg

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)


def failed_checks(evaluations: "Sequence[dg.AssetCheckEvaluation]") -> tuple[FailedCheck, ...]:
    """Those among the evaluations that did not pass."""
    return tuple(
        FailedCheck(one.check_name, one.severity.name == "ERROR", one.description or "")
        for one in evaluations
        if not one.passed
    )


def failure_of(result: "dg.ExecuteInProcessResult") -> ReconError | None:
    """Why the run failed: the error that its step reported, else what Dagster says; None if it did not fail."""
    from recon_pipeline.assets.handover import read_error

    fix = f"Look at run {result.run_id} in the UI (recon dev)."
    for event in result.all_events:
        if event.is_step_failure:
            described, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            where = f" in {event.step_key}"
        elif event.is_run_failure:
            described, error, where = None, event.job_failure_data.error, ""
        else:
            continue
        if error is not None and _INTERRUPTED in (error.cls_name or error.message):
            return ReconError(
                f"Run {result.run_id} was interrupted, by Ctrl-C or SIGTERM.",
                changed=REPAIRS_STAY,
                fix="Start it again when you like: it goes on with what is left.",
            )
        reported = read_error(described.metadata) if described else None
        reason = (described and described.description) or (error and error.message) or "no reason was given"
        return reported or ReconError(
            f"Run {result.run_id} failed{where}: {reason.strip()}", changed=REPAIRS_STAY, fix=fix
        )
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
