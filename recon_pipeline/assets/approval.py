"""Whether a run that exceeds the budgets, is a first one or finds the log lost may repair: only what was approved.

Invariant: an approval is valid for the figures of a blocked run over the same months and customers, and for no more,
and the first run that repairs anything under it uses it up. Where drift has grown beyond these figures, where nothing
was shown, or where what was shown was repaired since, the run is blocked and its own figures are what can be approved
next.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from recon_pipeline.assets import first_run
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.core.errors import BlockedError
from recon_pipeline.core.guards import Breach, beyond, breaches
from recon_pipeline.store.counters import compare, doubt_of_events_left
from recon_pipeline.store.records import run_metrics, runs
from recon_pipeline.store.records.repaired_today import repaired_today
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline.store.sums import quality

_BUDGETS = ("RECON_MAX_REPAIRS", "RECON_MAX_REPAIR_SHARE", "RECON_MAX_ORPHAN_SHARE", "RECON_MAX_OVER_QUOTA_TRANSITIONS")


def decide(step: Step, found: compare.Comparison) -> tuple[tuple[Breach, ...], BlockedError | None]:
    """What repairing what was found would exceed, first runs and budgets, and why it may not be done, if so.

    An approval that is needed is recorded.
    """
    exceeded = _exceeded_budgets(step, found)
    return exceeded, _refusal(step, exceeded) if exceeded else None


def _exceeded_budgets(step: Step, found: compare.Comparison) -> tuple[Breach, ...]:
    if not found.summary.repairs:
        return ()
    first = first_run.breaches(step)
    with step.database.transaction() as connection:
        today = repaired_today(connection, step.run)
    return (*first, *breaches(found.summary, step.settings.budgets, today))


def _refusal(step: Step, exceeded: Sequence[Breach]) -> BlockedError | None:
    reasons = "; ".join(breach.sentence for breach in exceeded)
    is_first = any(breach.variable not in _BUDGETS for breach in exceeded)
    if not step.approve_reason:
        look = f"Look at the sample of what would be repaired. If it is right:{step.how_to_approve}"
        return BlockedError(f"Blocked: {reasons}.", fix=first_run.fix(step) if is_first else look)
    shown = _shown(step)
    if shown is None:
        return _nothing_shown(step, reasons, "Look at the sample of this run. If it is right")
    figures = _figures(step, shown) | (first_run.shown(step, shown.run_id) if is_first else {})
    more = beyond(exceeded, figures)
    if more:
        grown = "; ".join(f"{breach.sentence}, and {figures[breach.variable]:,} were shown" for breach in more)
        return BlockedError(
            f"Blocked again, since more would be repaired than run {shown.run_id} showed: {grown}.",
            fix=f"Look at the sample, which is of now. If it is right, approve once more:{step.how_to_approve}",
        )
    _record(step, shown)
    return None


def lost_log_refusal(step: Step) -> tuple[BlockedError | None, str | None]:
    """Why a log without a single event may not be repaired from; if it was approved, what was, and by whom."""
    lost = _lost_log(step)
    if lost is None:
        return None, None
    if not step.approve_reason:
        return lost, None
    shown = _shown(step) or _answered_before(step)
    if shown is None:
        return _nothing_shown(step, lost.what.rstrip("."), "Look for the lost log. If the usage is truly gone"), None
    _record(step, shown)
    return None, f"{lost.what} {approved_by(step)}"


def _lost_log(step: Step) -> BlockedError | None:
    """The refusal where a metered usage has counters that are not 0 and not one visible event, else None."""
    with step.decision("READ COMMITTED") as (connection, tables):
        invisible = quality.invisible_usages(connection, step.run, tables)
    if not invisible:
        return None
    return BlockedError(
        f"Not one event of {', '.join(map(str, invisible))} is visible, but counters are not 0.",
        fix="Look for the lost log (wrong database, wrong schema, wrong RECON_SCOPE, a truncated table). "
        "If the usage is truly gone, approve it; that run shows each counter that would change, for an approval of its "
        f"own:{step.how_to_approve}",
    )


def approved_by(step: Step) -> str:
    """Who approved this run and why, for a person."""
    return f"Approved by {step.approved_by}: {step.approve_reason}"


def _nothing_shown(step: Step, reasons: str, look: str) -> BlockedError:
    named = (
        f"Run {step.approve_run}, which was approved, is no blocked run" if step.approve_run else "No run was blocked"
    )
    return BlockedError(
        f"Blocked: {reasons}. {named} over the same months and customers that is still current "
        "(an approval is used up by the first run that repairs under it), so nobody can have seen what would be done "
        "now.",
        fix=f"{look}, approve it:{step.how_to_approve}",
    )


def _shown(step: Step) -> RunRecord | None:
    with step.database.transaction() as connection:
        return runs.shown_run(connection, step.run.run_id, named=step.approve_run, is_blocked=True)


def _answered_before(step: Step) -> RunRecord | None:
    """The run that was blocked by the lost log, if the one that is approved went on under an approval of it.

    That run showed each counter that it left alone for its events, so who approves it knows of the log.
    """
    with step.database.transaction() as connection:
        shown = runs.shown_run(connection, step.run.run_id, named=step.approve_run, is_blocked=False)
        asked = _approved(connection, shown)
        while asked is not None and asked.drift_count is not None:  # only a lost log blocks a run before it compares
            asked = _approved(connection, asked)
    return asked


def _approved(connection: Connection, run: RunRecord | None) -> RunRecord | None:
    """The blocked run that was shown to the person who approved this one."""
    return runs.read(connection, run.approved_run_id) if run is not None and run.approved_run_id else None


def _record(step: Step, shown: RunRecord) -> None:
    with step.database.transaction() as connection:
        run_metrics.note_approval(
            connection,
            step.run.run_id,
            approved_by=step.approved_by,
            reason=step.approve_reason,
            approved_run_id=shown.run_id,
        )


def _figures(step: Step, shown: RunRecord) -> dict[str, int]:
    """What a blocked run showed, by the budget that it belongs to; 0 where it was blocked before it compared.

    Without the keys whose events left the log and that it let through: no budget counts those, and the next run asks
    about them again.
    """
    with step.database.transaction() as connection:
        let_through = doubt_of_events_left.count_let_through(connection, shown.run_id)
    repairs = (shown.drift_count or 0) - (shown.held_count or 0) - (shown.doubtful_count or 0) - let_through
    return {
        "RECON_MAX_REPAIRS": repairs,
        "RECON_MAX_REPAIR_SHARE": repairs,
        # Those that are held or doubtful are among them.
        "RECON_MAX_ORPHAN_SHARE": min((shown.drift_by_kind or {}).get("orphan", 0), repairs),
        "RECON_MAX_OVER_QUOTA_TRANSITIONS": shown.over_quota_transitions or 0,
    }
