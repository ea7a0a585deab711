"""A sealed month's events, as files on a disk or an object store: materialized by a person, with a target."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.periods import BillingMonth


class ArchiveTarget(dg.Config):
    """Where a month is archived to."""

    to: str = Field(
        default="",
        description="A folder, or a URL that fsspec opens, such as s3://bucket/events. Empty: nothing is archived.",
    )


def archived_events(names: Names) -> dg.AssetsDefinition:
    """The asset, of the installation of that name."""

    @dg.asset(
        key=names.key("archived_events"),
        deps=[names.key("sealed_counters")],
        partitions_def=BILLING_MONTHS,
        backfill_policy=dg.BackfillPolicy.multi_run(1),  # each month is archived, or refused, by itself
        group_name=names.group,
        required_resource_keys={names.database},
        owners=["team:billing"],
        kinds={"parquet"},
        output_required=False,
        description="The events of a sealed month as Parquet, which were read back before `recon.archived_month` says "
        "so. After that they may leave the log.",
    )
    def archived(context: dg.AssetExecutionContext, config: ArchiveTarget) -> Iterator[dg.MaterializeResult[Any]]:
        if not config.to:
            said = "Nothing was archived, since no target is named: Config, Add config, to."
            context.log_event(dg.AssetObservation(context.asset_key, description=said, partition=context.partition_key))
            return
        yield _archived(context, config, getattr(context.resources, names.database))

    return archived


def _archived(
    context: dg.AssetExecutionContext, config: ArchiveTarget, database: ReconciledDatabase
) -> dg.MaterializeResult[Any]:
    from recon_pipeline.assets.archiving import archive_month  # noqa: PLC0415 - loads Arrow, which few runs need

    month = BillingMonth.parse(context.partition_key)
    archived_by = context.run.tags.get("user", "unknown")
    try:
        with database.open().connection() as connection:
            done = archive_month(
                connection, database.settings(), month, config.to, archived_by=archived_by, run_id=context.run.run_id
            )
    except ReconError as error:
        raise failure(error) from error
    archives = [one.archive for one in done.months]
    return dg.MaterializeResult(
        metadata={
            "events": sum(one.row_count for one in archives),
            "files": sum(one.file_count for one in archives),
            "bytes": sum(one.byte_count for one in archives),
            "folders": "\n".join(one.folder for one in archives),
            "statements_for_the_owner_of_the_log": "\n".join(done.statements),
        }
    )
