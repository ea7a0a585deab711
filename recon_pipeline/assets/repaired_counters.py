"""Counters set to what the log says, under lock and with a ledger."""

from datetime import timedelta

import dagster as dg

from recon_pipeline.assets import approval, figures, first_run
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.store.counters import compare, repair
from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.records import run_metrics


def repaired_counters(names: Names) -> dg.AssetsDefinition:
    """The asset, of the installation of that name."""

    @dg.asset(
        key=names.key("repaired_counters"),
        deps=[names.key("counter_drift")],
        owners=["team:billing"],
        kinds={"postgres"},
        description="`billing_usage_counters` after repair: each drifted counter was locked, its event sum recomputed, "
        "and the counter set, in one transaction with its row in the ledger `recon.counter_repair`.",
        # A run comes at least once an hour.
        freshness_policy=dg.FreshnessPolicy.time_window(
            warn_window=timedelta(minutes=90), fail_window=timedelta(hours=3)
        ),
        **asset_options(names),
    )
    def repaired(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with step_of(context, names) as step:
            return _repaired(context, step)

    return repaired


def _repaired(context: dg.AssetExecutionContext, step: Step) -> dg.MaterializeResult:
    """Repair what this run's comparison found, after passing its guards once more."""
    found, _ = step.compared()
    lost, _ = approval.lost_log_refusal(step)
    exceeded, refused = approval.decide(step, found)
    blocked = lost or refused
    if blocked is not None:
        raise blocked
    if exceeded:
        first_run.accept_approved(step)
    with step.database.connection() as connection:
        with decision(connection) as tables:
            step.open(connection, tables)
        outcome = repair.repair(
            connection, step.run, drift_count=found.summary.drift_count, while_paused=step.while_paused
        )
    with step.database.transaction() as connection:
        run_metrics.note_repairs(connection, step.run.run_id, outcome)
        left = compare.sample(connection, step.run.run_id, outcomes=("failed", "deferred", "held", "doubtful"))
        done = compare.sample(connection, step.run.run_id, outcomes=("repaired",))
    return dg.MaterializeResult(
        metadata={
            "months": step.months,
            **({"paused": outcome.paused_reason} if outcome.pause else {}),
            **figures.by_month(
                context,
                step.run.extent,
                _figures(outcome),
                lambda month: _figures(outcome.of_month(month)),
            ),
            **sample("repaired", done, compare.DriftedKey),
            **sample("not_repaired", left, compare.DriftedKey),
        }
    )


def _figures(outcome: RepairOutcome) -> figures.Figures:
    return {
        "rows_repaired": outcome.repaired,
        "already_in_sync": outcome.in_sync,
        "deferred": outcome.deferred,
        "held": outcome.held,
        **({"doubtful": outcome.doubtful} if outcome.doubtful else {}),
        **({"untouched": outcome.untouched} if outcome.untouched else {}),
        "reconcile_failures": outcome.failed,
        "over_quota_transitions": outcome.over_quota_transitions,
        "under_quota_transitions": outcome.under_quota_transitions,
    }
