"""The last check of a run, on a new snapshot: does each counter match its event sum? It is answered month by month.

Invariant: each month of the run that is in the log gets an evaluation of its own, about its keys alone.
"""

import shlex
from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets import by_month, first_run
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.options import step_of
from recon_pipeline.assets.reconciler import Step, StepContext
from recon_pipeline.assets.tables import sample
from recon_pipeline.core.errors import one_line
from recon_pipeline.core.periods import BillingMonth, range_in_words
from recon_pipeline.store.counters import verify
from recon_pipeline.store.records import run_metrics, runs, schedule
from recon_pipeline.store.records.unchanged import Confirmed

NAME = "counters_match_event_sums"


def counters_match_event_sums(names: Names) -> dg.AssetChecksDefinition:
    """The last check, of the installation of that name."""

    @dg.asset_check(  # pyright: ignore[reportArgumentType] - typed for one result, though a step may yield several
        asset=names.key("repaired_counters"),
        name=NAME,
        partitions_def=BILLING_MONTHS,
        required_resource_keys={names.reconciler, names.database},
        description="Every counter of the month equals its event sum, compared on a fresh snapshot by another "
        "statement. A difference is a warning if the counter was locked during the repair, is held (recon hold), is "
        "doubtful, or was left alone because repairs are paused (recon pause). Any other difference is an error.",
    )
    def verified(context: dg.AssetCheckExecutionContext) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
        with step_of(context, names) as step:
            yield dg.Output(None)
            yield from _verified(context, names, step)

    return verified


def still_match(names: Names, start: BillingMonth, end: BillingMonth, run: Confirmed) -> dg.AssetCheckEvaluation:
    """What this check says by a tick that starts no run, since nothing of these months changed after a clean one.

    It is of no month, because Dagster stores no second evaluation of a month without a run; each month keeps the result
    of its latest run.
    """
    months = range_in_words(start, end)
    return dg.AssetCheckEvaluation(
        asset_key=names.key("repaired_counters"),
        check_name=NAME,
        passed=True,
        description=f"Nothing of {months} has changed since run {run.run_id[:8]}, which compared it at "
        f"{run.started_at:%Y-%m-%d %H:%M} UTC and found every counter matching.",
        metadata={"mismatch_count": 0, "months": months, "confirmed_run": run.run_id},
    )


def _verified(context: StepContext, names: Names, step: Step) -> Iterator[dg.AssetCheckEvaluation]:
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
    outcome = "clean" if answer.mismatch_count == 0 else "paused" if paused else "not_clean"
    step.finish(outcome, mismatch_count=answer.mismatch_count)
    for month in step.run.extent.months:
        yield _evaluation(context, names, step, month, answer.of_month(month.key), paused)


def _evaluation(
    context: StepContext, names: Names, step: Step, month: BillingMonth, found: verify.Mismatches, paused: str | None
) -> dg.AssetCheckEvaluation:
    excused = found.deferred_count + found.held_count + found.doubtful_count
    excused += found.untouched_count if paused else 0
    return by_month.evaluation(
        context.instance,
        dg.AssetCheckKey(names.key("repaired_counters"), NAME),
        month,
        passed=found.mismatch_count == 0,
        severity=dg.AssetCheckSeverity.WARN if found.mismatch_count == excused else dg.AssetCheckSeverity.ERROR,
        description=_described(found, month.key, paused),
        metadata={
            "mismatch_count": found.mismatch_count,
            "deferred_count": found.deferred_count,
            "held_count": found.held_count,
            "doubtful_count": found.doubtful_count,
            **({"paused": paused} if paused else {}),
            "customers": ", ".join(step.run.extent.customers or ("all",)),
            **sample("sample", found.sample, verify.Mismatch),
        },
    )


def _described(found: verify.Mismatches, month: str, paused: str | None) -> str:
    if found.mismatch_count == 0:
        return f"All counters of {month} equal their event sums."
    parts: list[str] = []
    untouched = found.untouched_count if paused else 0
    if untouched:
        parts.append(
            f"{untouched:,} counters of {month} differ from their event sums and were left alone: repairs are paused "
            f"{paused}. To end the pause: recon resume."
        )
    if found.deferred_count:
        parts.append(
            f"{found.deferred_count:,} counters of {month} were locked by another session and deferred; "
            "the next run repairs them. "
            "If they stay, look in pg_stat_activity for a transaction that is open for long."
        )
    if found.doubtful_count:
        reasons = sorted({one.error for one in found.sample if one.outcome == "doubtful"})
        parts.append(
            f"{found.doubtful_count:,} counters of {month} differ from their event sums and were left alone, because "
            f"the log does not say for certain what they should be: {'; '.join(reasons) or 'see recon status'}."
        )
    if found.held_count:  # last: it ends with a command
        customers = sorted({one.gateway_customer_id for one in found.sample if one.outcome == "held"})
        parts.append(
            f"{found.held_count:,} counters of {month} differ from their event sums and are held: "
            f"{', '.join(map(one_line, customers)) or 'see recon status'}. "
            "The first run after a hold repairs them; to end one: "
            f"recon release --customer {shlex.quote(customers[0]) if customers else 'ID'}"
        )
    wrong = found.mismatch_count - untouched - found.held_count - found.doubtful_count - found.deferred_count
    if wrong:
        parts.insert(
            0,
            f"{wrong:,} counters of {month} differ from their event sums. "
            "A key with an error in the sample cannot be repaired until its cause is fixed; "
            "one without drifted after the comparison, and the next run repairs it.",
        )
    return " ".join(parts)
