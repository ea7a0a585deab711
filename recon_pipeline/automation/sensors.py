"""Closes the records of runs, and of their batches, that ended without closing their own: crashes, cancellations.

Dagster gives these sensors the runs of their own code location alone; of those, only ours have a record.
"""

import dagster as dg

from recon_pipeline.assets.reconciler import close_record, open_database
from recon_pipeline.settings import read_settings
from recon_pipeline.store.backfill import batches

_ENDED_WITHOUT_SAYING = (
    "The run ended in Dagster before it closed its record; whole chunks of repairs are done, the rest is untouched."
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
    """A run without the final check compared and did no more."""
    _close(context, "compared", None)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.FAILURE,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the record of a run that crashed.",
)
def run_failed(context: dg.RunStatusSensorContext) -> None:
    """A run that was killed could not say so itself."""
    _close(context, "failed", _ENDED_WITHOUT_SAYING)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Closes the record of a run that a person stopped.",
)
def run_canceled(context: dg.RunStatusSensorContext) -> None:
    """A run that was stopped is not clean."""
    _close(context, "failed", _ENDED_WITHOUT_SAYING)
