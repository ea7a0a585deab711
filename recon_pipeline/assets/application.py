"""The application's own tables that the pipeline reads or repairs, as they stand in the lineage."""

import dagster as dg

billing_usage_counters = dg.AssetSpec(
    "billing_usage_counters",
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="The enforcement counters that the application increments and reads at every request.",
)

billing_subscriptions = dg.AssetSpec(
    "billing_subscriptions",
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="Who is subscribed for which period; decides the usage limit of a key. Read only.",
)
