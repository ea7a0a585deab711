"""The application's own tables that the pipeline reads or repairs, as assets of the lineage."""

import dagster as dg

from recon_pipeline.assets.names import Names


def application_tables(names: Names) -> tuple[dg.AssetSpec, ...]:
    """The counters and the subscriptions."""
    return (
        dg.AssetSpec(
            names.key("billing_usage_counters"),
            group_name=names.group,
            owners=["team:billing"],
            kinds={"postgres"},
            description="The enforcement counters that the application increments and reads at every request.",
        ),
        dg.AssetSpec(
            names.key("billing_subscriptions"),
            group_name=names.group,
            owners=["team:billing"],
            kinds={"postgres"},
            description="Who is subscribed for which period; decides the usage limit of a key. Read only.",
        ),
    )
