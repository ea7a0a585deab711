"""The jobs over assets: reconcile (compare, repair, verify), late events before it, closed months after it."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from recon_pipeline.automation.installation import Installation


def asset_job(
    ours: Installation, name: str, *assets: dg.AssetKey, description: str, lane: str | None = None
) -> UnresolvedAssetJobDefinition:
    """A job of ours over assets, in one process: their data passes through Postgres.

    Args:
        ours: This installation.
        name: Of the job, within it.
        assets: What it materializes.
        description: What it does.
        lane: Of which its runs never overlap, whoever starts them; None: whoever starts one says.
    """
    return dg.define_asset_job(
        ours.names.of(name),
        selection=dg.AssetSelection.assets(*assets),
        executor_def=dg.in_process_executor,
        tags={**ours.run_tags, **(ours.lane(lane) if lane else {})},
        description=description,
    )


def reconcile(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Compare, repair, verify."""
    return asset_job(
        ours,
        "reconcile",
        *ours.names.pipeline,
        description="Compare counters with the event log, repair drifted ones, verify. For a range of billing months.",
    )


def backfill_usage_events(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Insert late events, then the same."""
    return asset_job(
        ours,
        "backfill_usage_events",
        ours.names.key("backfilled_events"),
        *ours.names.pipeline,
        description="Insert late events from the source in the config, then reconcile the run's months.",
    )


def count_lake(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Count months in the lake."""
    return asset_job(
        ours,
        "count_lake",
        ours.names.key("lake_event_sums"),
        description="Count months in the lake that RECON_LAKE names; the next run compares their counters with it.",
    )


def seal_months(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Seal closed months."""
    return asset_job(
        ours,
        "seal_months",
        ours.names.key("sealed_counters"),
        description="Seal a closed billing month: its counters stay what was billed, whatever happens to the log.",
    )


def archive_months(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Archive sealed months."""
    return asset_job(
        ours,
        "archive_months",
        ours.names.key("archived_events"),
        description="Write the events of a sealed billing month as files, and read them back. Deletes nothing.",
    )
