"""Counters set to what the log says, under lock and with a ledger; and the promise of the product, asked afresh."""

import dagster as dg

from recon_pipeline.assets.counter_drift import budgets_exceeded, counter_drift
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.tables import sample
from recon_pipeline.store import drift, horizons, repair, runs, schedule
from recon_pipeline.store.billing_tables import require_trustworthy
from recon_pipeline.store.database import begin


@dg.asset(
    deps=[counter_drift],
    partitions_def=BILLING_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="`billing_usage_counters` after repair: each drifted counter was locked, its event sum recomputed, and "
    "the counter set, in one transaction with its row in the ledger `recon.counter_repair`.",
)
def repaired_counters(context: dg.AssetExecutionContext, reconciler: Reconciler) -> dg.MaterializeResult:
    """Repair what this run's comparison found, after passing its guards once more."""
    with reconciler.step(context) as step:
        found, tables = step.compared()
        lost = step.lost_log(tables)
        if lost is not None and not step.approve_reason:
            raise lost
        if exceeded := step.unapproved_breaches(found):
            raise budgets_exceeded(exceeded)
        with step.database.connection() as connection:
            with begin(connection):
                mode, _ = step.open(connection, tables)
            drift_count = found.summary.drift_count
            outcome = repair.repair(connection, step.run, tables, drift_count=drift_count, sums=mode.sums)
        with step.database.transaction() as connection:
            runs.note_repairs(connection, step.run.run_id, outcome)
            left = drift.sample(connection, step.run.run_id, outcomes=("failed", "deferred"))
            done = drift.sample(connection, step.run.run_id, outcomes=("repaired",))
        return dg.MaterializeResult(
            metadata={
                "months": step.months,
                "rows_repaired": outcome.repaired,
                "already_in_sync": outcome.in_sync,
                "deferred": outcome.deferred,
                "reconcile_failures": outcome.failed,
                "over_quota_transitions": outcome.over_quota_transitions,
                "under_quota_transitions": outcome.under_quota_transitions,
                **sample("repaired", done, drift.DriftedKey),
                **sample("not_repaired", left, drift.DriftedKey),
            }
        )


@dg.asset_check(
    asset=repaired_counters,
    description="Every counter equals its event sum, asked of log and counters on a fresh snapshot by a statement of "
    "its own. "
    "A counter that somebody held locked during the repair is a warning; any other difference is an error.",
)
def counters_match_event_sums(context: dg.AssetCheckExecutionContext, reconciler: Reconciler) -> dg.AssetCheckResult:
    """Compare once more, and close the record of the run."""
    with reconciler.step(context) as step:
        with step.database.transaction() as connection:
            mode, _ = step.open(connection, require_trustworthy(connection))
            compared = runs.compared(connection, step.run.run_id)
            fingerprint = horizons.fingerprint(connection)
        with step.database.transaction("REPEATABLE READ") as connection:
            tables = require_trustworthy(connection)
            answer = drift.verify(
                connection, step.run, tables, sums=mode.sums, fingerprint=fingerprint, compared=compared
            )
        if answer.mismatch_count == 0:
            with step.database.transaction() as connection:
                schedule.note_verified(connection, step.run, answer)
        wrong = answer.mismatch_count - answer.deferred_count
        step.finish("not_clean" if answer.mismatch_count else "clean", mismatch_count=answer.mismatch_count)
        return dg.AssetCheckResult(
            passed=answer.mismatch_count == 0,
            severity=dg.AssetCheckSeverity.ERROR if wrong else dg.AssetCheckSeverity.WARN,
            description=_told(answer, step.months),
            metadata={
                "mismatch_count": answer.mismatch_count,
                "deferred_count": answer.deferred_count,
                "months": step.months,
                "customers": ", ".join(step.run.extent.customers or ("all",)),
                **sample("sample", answer.sample, drift.Mismatch),
            },
        )


def _told(answer: drift.Verification, months: str) -> str:
    if answer.mismatch_count == 0:
        return f"All counters of {months} equal their event sums."
    if answer.mismatch_count == answer.deferred_count:
        return (
            f"{answer.deferred_count:,} counters of {months} were locked by somebody and put off; "
            "the next run repairs them. "
            "If they stay, look in pg_stat_activity for a transaction that is open for long."
        )
    return (
        f"{answer.mismatch_count:,} counters of {months} differ from their event sums, "
        f"{answer.deferred_count:,} of them put off. "
        "A key with an error in the sample cannot be repaired until its cause is mended; "
        "one without drifted after the comparison, and the next run repairs it."
    )
