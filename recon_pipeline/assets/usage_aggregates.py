"""Event sums per key, in `recon.usage_aggregate`: what each counter should say."""

import dagster as dg

from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.reconciler import MODE, Reconciler
from recon_pipeline.assets.tables import sample
from recon_pipeline.assets.usage_events import usage_events
from recon_pipeline.store import aggregates, runs
from recon_pipeline.store.billing_tables import require_trustworthy

_KEY = dg.AssetKey("usage_aggregates")


@dg.asset(
    key=_KEY,
    deps=[usage_events],
    partitions_def=BILLING_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            "event_sums_fit_counters",
            asset=_KEY,
            description="Every event sum is a whole number that a bigint counter can hold. "
            "A counter whose sum is not cannot be repaired; all others are.",
        )
    ],
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="The sum of usage per customer, usage type and billing period, from valid events, each request id "
    "counted once. Stored in `recon.usage_aggregate`.",
)
def usage_aggregates(context: dg.AssetExecutionContext, reconciler: Reconciler) -> dg.MaterializeResult:
    """Bring the stored sums in line with the log."""
    with reconciler.step(context) as step, step.database.transaction() as connection:
        tables = require_trustworthy(connection)
        runs.start(connection, step.run, mode=MODE)
        totals = aggregates.store_from_log(connection, step.run, tables)
        count, oversized = aggregates.oversized(connection, step.run, tables)
        return dg.MaterializeResult(
            metadata={
                "months": step.months,
                "mode": MODE,
                "keys": totals.keys,
                "events": totals.events,
                "usage": float(totals.usage),
                "keys_changed": totals.keys_changed,
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name="event_sums_fit_counters",
                    passed=count == 0,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"{count:,} event sums are past bigint or not whole; their counters stay as they are. "
                    "Look at the quantities of these customers' events."
                    if count
                    else None,
                    metadata={"count": count, **sample("sample", oversized, aggregates.OversizedSum)},
                )
            ],
        )
