"""Closes the records of runs, and of their batches, that a crash or a cancellation left open.

Dagster gives these sensors only the runs of their own code location; of those, only ours have a record.
"""

import dagster as dg

from recon_pipeline.assets.reconciler import close_record
from recon_pipeline.settings import read_settings
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.postgres.database import open_database

_RECORD_LEFT_OPEN = (
    "The run ended in Dagster before it closed its record; whole chunks of repairs are done, the rest is unchanged."
)


def _close(context: dg.RunStatusSensorContext, outcome: str, error: str | None) -> None:
    database, run_id = open_database(read_settings()), context.dagster_run.run_id
    close_record(database, run_id, outcome, context.log.info, error=error)
    if error is not None:
        with database.transaction() as connection:
            batches.fail_open(connection, run_id, error=error)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the record of a run that only compared.",
)
def run_succeeded(context: dg.RunStatusSensorContext) -> None:
    """A run without the final check only compared."""
    _close(context, "compared", None)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.FAILURE,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the record of a run that crashed.",
)
def run_failed(context: dg.RunStatusSensorContext) -> None:
    """A killed run could not close its record itself."""
    _close(context, "failed", _RECORD_LEFT_OPEN)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the record of a run that a person stopped.",
)
def run_canceled(context: dg.RunStatusSensorContext) -> None:
    """A run that was stopped is not clean."""
    _close(context, "failed", _RECORD_LEFT_OPEN)
