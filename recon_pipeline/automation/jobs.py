"""The jobs over assets: reconcile (compare, repair, verify), late events before it, closed months after it."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from recon_pipeline.automation.installation import Installation


def reconcile(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Compare, repair, verify."""
    return dg.define_asset_job(
        ours.names.of("reconcile"),
        selection=dg.AssetSelection.assets(*ours.names.pipeline),
        executor_def=dg.in_process_executor,
        tags=ours.run_tags,
        description="Compare counters with the event log, repair drifted ones, verify. For a range of billing months.",
    )


def backfill_usage_events(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Insert late events, then the same."""
    return dg.define_asset_job(
        ours.names.of("backfill_usage_events"),
        selection=dg.AssetSelection.assets(ours.names.key("backfilled_events"), *ours.names.pipeline),
        executor_def=dg.in_process_executor,
        tags=ours.run_tags,
        description="Insert late events from the source in the config, then reconcile the run's months.",
    )


def count_lake(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Count months in the lake."""
    return dg.define_asset_job(
        ours.names.of("count_lake"),
        selection=dg.AssetSelection.assets(ours.names.key("lake_event_sums")),
        executor_def=dg.in_process_executor,
        tags=ours.run_tags,
        description="Count months in the lake that RECON_LAKE names; the next run compares their counters with it.",
    )


def seal_months(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Seal closed months."""
    return dg.define_asset_job(
        ours.names.of("seal_months"),
        selection=dg.AssetSelection.assets(ours.names.key("sealed_counters")),
        executor_def=dg.in_process_executor,
        tags=ours.run_tags,
        description="Seal a closed billing month: its counters stay what was billed, whatever happens to the log.",
    )


def archive_months(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Archive sealed months."""
    return dg.define_asset_job(
        ours.names.of("archive_months"),
        selection=dg.AssetSelection.assets(ours.names.key("archived_events")),
        executor_def=dg.in_process_executor,
        tags=ours.run_tags,
        description="Write the events of a sealed billing month as files, and read them back. Deletes nothing.",
    )
