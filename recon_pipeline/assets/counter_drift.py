"""The exact comparison of counters with the log at one snapshot, and the guards before anything is repaired."""

import dagster as dg

from recon_pipeline.assets import approval
from recon_pipeline.assets.application import billing_subscriptions, billing_usage_counters
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.reconciler import Reconciler, Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.assets.usage_aggregates import usage_aggregates
from recon_pipeline.store.counters import compare

_KEY = dg.AssetKey("counter_drift")


@dg.asset(
    key=_KEY,
    deps=[usage_aggregates, billing_usage_counters, billing_subscriptions],
    partitions_def=BILLING_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            "drift_is_within_budgets",
            asset=_KEY,
            blocking=True,
            description="Repairing what was found changes no more than the budgets allow for a day. "
            "Beyond them nothing is written until a person approves it with a reason.",
        ),
        dg.AssetCheckSpec(
            "quota_limits_are_known",
            asset=_KEY,
            description="`billing_subscriptions` is there, so that limits and quota transitions are known.",
        ),
    ],
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="Every counter that is not what the log says, with the kind of drift and what a repair would do to the "
    "customer's quota. Stored in `recon.counter_drift`.",
)
def counter_drift(context: dg.AssetExecutionContext, reconciler: Reconciler) -> dg.MaterializeResult:
    """Compare counters with the log at one snapshot."""
    with reconciler.step(context) as step:
        found, tables = step.compare()
        with step.database.transaction() as connection:
            drifted = compare.sample(connection, step.run.run_id)
        summary = found.summary
        return dg.MaterializeResult(
            metadata={
                "months": step.months,
                "drift_count": summary.drift_count,
                **summary.by_kind,
                "over_quota_transitions": summary.over_quota_transitions,
                "under_quota_transitions": summary.under_quota_transitions,
                "usage_missed": summary.usage_missed,
                "usage_excess": summary.usage_excess,
                "counters_scanned": summary.counters_scanned,
                "keys_compared": summary.keys_compared,
                **sample("sample", drifted, compare.DriftedKey),
                **sample("by_month", found.cells, compare.DriftCell),
            },
            check_results=[
                _within_budgets(step, found, drifted),
                dg.AssetCheckResult(
                    check_name="quota_limits_are_known",
                    passed=tables.has_subscriptions,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=None
                    if tables.has_subscriptions
                    else "There is no table billing_subscriptions, so quota transitions are unknown (shown as 0). "
                    "Counters are compared and repaired all the same.",
                ),
            ],
        )


def _within_budgets(
    step: Step, found: compare.Comparison, drifted: tuple[compare.DriftedKey, ...]
) -> dg.AssetCheckResult:
    exceeded, blocked = approval.decide(step, found)
    if blocked is not None:
        step.finish("blocked", error=str(blocked))
    approved = approval.approved_by(step) if exceeded else None
    return dg.AssetCheckResult(
        check_name="drift_is_within_budgets",
        passed=blocked is None,
        description=str(blocked) if blocked is not None else approved,
        metadata={
            "months": step.months,
            "drift_count": found.summary.drift_count,
            **sample("would_repair", drifted, compare.DriftedKey),
            **{f"{breach.variable} allows": breach.allowed for breach in exceeded},
            **{f"{breach.variable} used in the last 24 hours": breach.earlier for breach in exceeded if breach.earlier},
        },
    )
