"""The event sums of a month, counted in a lake that somebody else writes, where RECON_LAKE names one."""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets.handover import failure
from recon_pipeline.assets.lake_engine import LakeEngine
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.errors import ReconError
from recon_pipeline.core.exact import as_text, total
from recon_pipeline.core.periods import BillingMonth


def lake_event_sums(names: Names) -> dg.AssetsDefinition:
    """The asset, of the installation of that name."""

    @dg.asset(
        key=names.key("lake_event_sums"),
        partitions_def=BILLING_MONTHS,
        backfill_policy=dg.BackfillPolicy.single_run(),  # the lake is listed and opened once
        group_name=names.group,
        required_resource_keys={names.database, names.lake_engine},
        owners=["team:billing"],
        kinds={"parquet", "duckdb", "postgres"},
        output_required=False,
        description="Event sums of a month, counted by an engine in the lake that RECON_LAKE names. They stand in the "
        "place of the log: the next run compares the month's counters with them. Stored in `recon.lake_count` and "
        "`recon.lake_counter`.",
    )
    def counted(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        resources = context.resources
        yield from _counted(context, getattr(resources, names.database), getattr(resources, names.lake_engine))

    return counted


def _counted(
    context: dg.AssetExecutionContext, database: ReconciledDatabase, engine: LakeEngine
) -> Iterator[dg.MaterializeResult]:
    # They load pyarrow and fsspec, which most runs need none of.
    from recon_pipeline.assets.lake_counting import count_months  # noqa: PLC0415
    from recon_pipeline.lake.settings import has_lake  # noqa: PLC0415

    if not has_lake():
        said = "Nothing was counted, since RECON_LAKE is not set."
        context.log_event(dg.AssetObservation(context.asset_key, description=said))
        return

    months = [BillingMonth.parse(key) for key in context.partition_keys]
    try:
        done = count_months(
            database.open(),
            database.settings(),
            engine.lake(),
            months,
            counted_by=context.run.tags.get("user", "unknown"),
            run_id=context.run.run_id,
        )
    except ReconError as error:
        raise failure(error) from error
    for one in done:
        context.log.info(f"{one.month.key} of {one.usage}: {one.reason or one.count}")
    found = [one.count for one in done if one.count is not None]
    if found:
        yield dg.MaterializeResult(
            metadata={
                "keys": sum(count.key_count for count in found),
                "events": sum(count.event_count for count in found),
                "units": as_text(total(count.usage_count for count in found)),
                "invalid": sum(count.invalid_count for count in found),
                "duplicates": sum(count.dedupe_count for count in found),
                "in_no_month": max(one.in_no_month for one in done),
                "files": len(found[0].source["files"]),
                "engine": found[0].engine,
            },
        )
