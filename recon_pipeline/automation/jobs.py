"""The jobs: reconcile (compare, repair, verify), the backfill of late events before it, and housekeeping."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from recon_pipeline.assets.backfilled_events import backfilled_events
from recon_pipeline.assets.counter_drift import counter_drift
from recon_pipeline.assets.repaired_counters import repaired_counters
from recon_pipeline.assets.usage_aggregates import usage_aggregates
from recon_pipeline.assets.usage_events import usage_events
from recon_pipeline.automation.own_runs import OwnRuns
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import open_database
from recon_pipeline.store.records import outbox, runs

LANE_TAG = "recon/lane"
"""Runs of one lane never overlap (`dagster.yaml`): ticks among themselves, audits among themselves."""

KEEP_RUNS_DAYS = 30
KEEP_DRIFT_DAYS = 30
KEEP_ALERTS_DAYS = 90
DELETED_RUNS_AT_MOST = 10_000

PIPELINE = (usage_events, usage_aggregates, counter_drift, repaired_counters)

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.assets(*PIPELINE),
    description="Compare counters with the event log, repair drifted ones, verify. For a range of billing months.",
)


backfill_usage_events = dg.define_asset_job(
    "backfill_usage_events",
    selection=dg.AssetSelection.assets(backfilled_events, *PIPELINE),
    description="Insert late events from the source in the config, then reconcile the run's months.",
)


@dg.op
def delete_old_runs(context: dg.OpExecutionContext) -> int:
    """Delete our finished runs in Dagster that are older than `KEEP_RUNS_DAYS`; their record in `recon` stays."""
    with open_database(read_settings()).transaction() as connection:
        ours = OwnRuns.of_run(context.run, connection)
    old = ours.ended(context.instance, created_before=datetime.now(UTC) - timedelta(days=KEEP_RUNS_DAYS))
    deleted = 0
    for record in islice(old, DELETED_RUNS_AT_MOST):
        context.instance.delete_run(record.dagster_run.run_id)
        deleted += 1
    context.add_output_metadata({"deleted_runs": deleted})
    return deleted


@dg.op
def delete_old_drift(context: dg.OpExecutionContext) -> int:
    """Delete drift rows of runs older than `KEEP_DRIFT_DAYS`; the ledger of repairs is kept for ever."""
    with open_database(read_settings()).transaction() as connection:
        deleted = runs.delete_old_drift(connection, days=KEEP_DRIFT_DAYS)
    context.add_output_metadata({"deleted_drift_rows": deleted})
    return deleted


@dg.op
def delete_old_alerts(context: dg.OpExecutionContext) -> int:
    """Delete messages older than `KEEP_ALERTS_DAYS` that all targets have got."""
    with open_database(read_settings()).transaction() as connection:
        deleted = outbox.delete_old(connection, days=KEEP_ALERTS_DAYS)
    context.add_output_metadata({"deleted_alerts": deleted})
    return deleted


@dg.job(
    executor_def=dg.in_process_executor,
    tags={LANE_TAG: "housekeeping"},
    description="Delete our old runs in Dagster, drift rows and alerts: a job that runs 288 times a day fills a disk.",
)
def housekeeping() -> None:
    """All deletions, independent of each other."""
    delete_old_runs()
    delete_old_drift()
    delete_old_alerts()
