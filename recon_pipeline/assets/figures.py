"""The figures of a run, as metadata of the months that it materializes: each month gets its own."""

from collections.abc import Callable, Mapping

import dagster as dg

from recon_pipeline.core.scope import Extent

Figures = Mapping[str, int]


def by_month(
    context: dg.AssetExecutionContext,
    extent: Extent,
    totals: Figures,
    of_month: Callable[[str], Figures] | None = None,
) -> dict[str, int | dg.JsonMetadataValue]:
    """Give each month of the run its own figures.

    Args:
        context: Of the step that materializes the months.
        extent: What the run covered; months that are declared to be no longer in the log get no figures.
        totals: Over all months.
        of_month: Those figures that are known of a month, `YYYY-MM`; None if they are known only of all.

    Returns:
        The metadata of all months: the totals. If there are several months, they stand under one name, so that none
        shows them as its own.
    """
    if len(context.partition_keys) == 1:
        return dict(totals)
    if of_month is not None:
        for month in extent.months:
            context.add_asset_metadata(of_month(month.key), partition_key=month.key)
    return {"all_months": dg.MetadataValue.json(dict(totals))}
