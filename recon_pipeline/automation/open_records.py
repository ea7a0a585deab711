"""Closes the records of runs, and of their batches, that a crash or a cancellation left open."""

from collections.abc import Callable, Sequence

from recon_pipeline.assets.run_record import close_record
from recon_pipeline.core.ended_runs import EndedRun, Ending
from recon_pipeline.store.backfill import batches
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import runs

_LEFT_OPEN = (
    "The run ended in Dagster before it closed its record; whole chunks of repairs are done, the rest is unchanged."
)


def close_left_open(database: BillingDatabase, ended: Sequence[EndedRun], log: Callable[[str], None]) -> None:
    """Close what these runs left open: one that succeeded without the last check only compared, any other has failed.

    A record that is closed stays as it is.
    """
    with database.transaction() as connection:
        open_ids = runs.left_open(connection, [run.run_id for run in ended])
    for run in ended:
        if run.run_id not in open_ids:
            continue
        if run.ending is Ending.SUCCEEDED:
            close_record(database, run.run_id, "compared", log)
            continue
        close_record(database, run.run_id, "failed", log, error=_LEFT_OPEN)
        with database.transaction() as connection:
            batches.fail_open(connection, run.run_id, error=_LEFT_OPEN)
