"""The job that deletes what is old: our runs in Dagster, rows of drift, delivered messages."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.own_runs import OwnRuns
from recon_pipeline.store.records import outbox, runs

KEEP_RUNS_DAYS = 30
KEEP_DRIFT_DAYS = 30
KEEP_ALERTS_DAYS = 90
DELETED_RUNS_AT_MOST = 10_000


def housekeeping(ours: Installation) -> dg.JobDefinition:
    """All deletions, independent of each other."""
    names = ours.names

    def database(context: dg.OpExecutionContext) -> ReconciledDatabase:
        return getattr(context.resources, names.database)

    @dg.op(name=names.of("delete_old_runs"), required_resource_keys={names.database})
    def delete_old_runs(context: dg.OpExecutionContext) -> int:
        """Delete our finished runs in Dagster that are older than `KEEP_RUNS_DAYS`; their record in `recon` stays."""
        with database(context).open().transaction() as connection:
            own = OwnRuns.of_run(context.run, names, connection)
        old = own.ended(context.instance, created_before=datetime.now(UTC) - timedelta(days=KEEP_RUNS_DAYS))
        deleted = 0
        for record in islice(old, DELETED_RUNS_AT_MOST):
            context.instance.delete_run(record.dagster_run.run_id)
            deleted += 1
        context.add_output_metadata({"deleted_runs": deleted})
        return deleted

    @dg.op(name=names.of("delete_old_drift"), required_resource_keys={names.database})
    def delete_old_drift(context: dg.OpExecutionContext) -> int:
        """Delete drift rows of runs older than `KEEP_DRIFT_DAYS`; the ledger of repairs is kept for ever."""
        with database(context).open().transaction() as connection:
            deleted = runs.delete_old_drift(connection, days=KEEP_DRIFT_DAYS)
        context.add_output_metadata({"deleted_drift_rows": deleted})
        return deleted

    @dg.op(name=names.of("delete_old_alerts"), required_resource_keys={names.database})
    def delete_old_alerts(context: dg.OpExecutionContext) -> int:
        """Delete messages older than `KEEP_ALERTS_DAYS` that all targets have got."""
        with database(context).open().transaction() as connection:
            deleted = outbox.delete_old(connection, days=KEEP_ALERTS_DAYS)
        context.add_output_metadata({"deleted_alerts": deleted})
        return deleted

    @dg.job(
        name=names.of("housekeeping"),
        executor_def=dg.in_process_executor,
        tags={**ours.run_tags, **ours.lane("housekeeping")},
        description="Delete our old runs in Dagster, drift rows and alerts: a job that runs 288 times a day fills "
        "a disk.",
    )
    def all_deletions() -> None:
        delete_old_runs()
        delete_old_drift()
        delete_old_alerts()

    return all_deletions
