"""Counters set to what the log says, under lock and with a ledger; and the last check, on a new snapshot."""

from datetime import timedelta

import dagster as dg

from recon_pipeline.assets import approval, figures, first_run
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import asset_options, step_of
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.periods import BillingMonth, range_in_words
from recon_pipeline.store.counters import compare, repair, verify
from recon_pipeline.store.counters.repair import RepairOutcome
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.records import run_metrics, runs, schedule
from recon_pipeline.store.records.unchanged import Confirmed

_LAST_CHECK = "counters_match_event_sums"


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


def counters_match_event_sums(names: Names) -> dg.AssetChecksDefinition:
    """The last check, of the installation of that name."""

    @dg.asset_check(
        asset=names.key("repaired_counters"),
        name=_LAST_CHECK,
        required_resource_keys={names.reconciler, names.database},
        description="Every counter equals its event sum, compared on a fresh snapshot by another statement. A "
        "difference is a warning if the counter was locked during the repair, is held (recon hold), is doubtful, or "
        "was left alone because repairs are paused (recon pause). Any other difference is an error.",
    )
    def verified(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with step_of(context, names) as step:
            return _verified(step)

    return verified


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


def _verified(step: Step) -> dg.AssetCheckResult:
    """Compare once more, and close the record of the run."""
    with step.decision("READ COMMITTED") as (connection, tables):
        choice, _ = step.open(connection, tables)
        compared_below = run_metrics.compared_below(connection, step.run.run_id)
        record = runs.read(connection, step.run.run_id)
    with step.decision() as (connection, tables):
        answer = verify.verify(connection, step.run, tables, mode=choice.mode, compared_below=compared_below)
    with step.database.transaction() as connection:
        is_noted = schedule.note_verified(connection, step.run, tables, answer)
    if is_noted:
        first_run.accept_matching(step, answer)
    paused = record.paused_reason if record else None
    excused = answer.deferred_count + answer.held_count + answer.doubtful_count
    excused += answer.untouched_count if paused else 0
    outcome = "clean" if answer.mismatch_count == 0 else "paused" if paused else "not_clean"
    step.finish(outcome, mismatch_count=answer.mismatch_count)
    return dg.AssetCheckResult(
        passed=answer.mismatch_count == 0,
        severity=dg.AssetCheckSeverity.WARN if answer.mismatch_count == excused else dg.AssetCheckSeverity.ERROR,
        description=_described(answer, step.months, paused),
        metadata={
            "mismatch_count": answer.mismatch_count,
            "deferred_count": answer.deferred_count,
            "held_count": answer.held_count,
            "doubtful_count": answer.doubtful_count,
            **({"paused": paused} if paused else {}),
            "months": step.months,
            "customers": ", ".join(step.run.extent.customers or ("all",)),
            **sample("sample", answer.sample, verify.Mismatch),
        },
    )


def still_match(names: Names, start: BillingMonth, end: BillingMonth, run: Confirmed) -> dg.AssetCheckEvaluation:
    """What this check says by a tick that starts no run, since nothing of these months changed after a clean one."""
    months = range_in_words(start, end)
    return dg.AssetCheckEvaluation(
        asset_key=names.key("repaired_counters"),
        check_name=_LAST_CHECK,
        passed=True,
        description=f"Nothing of {months} has changed since run {run.run_id[:8]}, which compared it at "
        f"{run.started_at:%Y-%m-%d %H:%M} UTC and found every counter matching.",
        metadata={"mismatch_count": 0, "months": months, "confirmed_run": run.run_id},
    )


def _described(answer: verify.Verification, months: str, paused: str | None) -> str:
    if answer.mismatch_count == 0:
        return f"All counters of {months} equal their event sums."
    parts: list[str] = []
    untouched = answer.untouched_count if paused else 0
    if untouched:
        parts.append(
            f"{untouched:,} counters of {months} differ from their event sums and were left alone: repairs are paused "
            f"{paused}. To end the pause: recon resume."
        )
    if answer.held_count:
        customers = sorted({one.gateway_customer_id for one in answer.sample if one.outcome == "held"})
        parts.append(
            f"{answer.held_count:,} counters of {months} differ from their event sums and are held: "
            f"{', '.join(customers) or 'see recon status'}. "
            "The first run after a hold repairs them; to end one: recon release."
        )
    if answer.deferred_count:
        parts.append(
            f"{answer.deferred_count:,} counters of {months} were locked by another session and deferred; "
            "the next run repairs them. "
            "If they stay, look in pg_stat_activity for a transaction that is open for long."
        )
    if answer.doubtful_count:
        reasons = sorted({one.error for one in answer.sample if one.outcome == "doubtful"})
        parts.append(
            f"{answer.doubtful_count:,} counters of {months} differ from their event sums and were left alone, because "
            f"the log does not say for certain what they should be: {'; '.join(reasons) or 'see recon status'}."
        )
    wrong = answer.mismatch_count - untouched - answer.held_count - answer.doubtful_count - answer.deferred_count
    if wrong:
        parts.insert(
            0,
            f"{wrong:,} counters of {months} differ from their event sums. "
            "A key with an error in the sample cannot be repaired until its cause is fixed; "
            "one without drifted after the comparison, and the next run repairs it.",
        )
    return " ".join(parts)
