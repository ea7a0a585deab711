"""The first run that may repair a metered usage, or earlier months of it: it waits for an approval if it finds drift.

Invariant: no counter of a metered usage is changed before a person has seen all of its changes, or a run has found
every counter matching. An approval of a part is valid for that part; only a run over everything accepts the usage.
"""

from recon_pipeline.assets.months import months_of_run_in_the_log
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.guards import Breach, first_run_breach
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.store.counters.verify import Verification
from recon_pipeline.store.records import accepted_usages
from recon_pipeline.store.records.accepted_usages import RepairsToAccept


def breaches(step: Step) -> tuple[Breach, ...]:
    """One for each metered usage of which this run would change anything that waits for its first approval."""
    return tuple(
        first_run_breach(str(found.waiting.usage), found.by_kind, found.largest, before=_key(found.waiting.before))
        for found in _found(step, step.run.run_id)
    )


def shown(step: Step, run_id: str) -> dict[str, int]:
    """What another run would have changed of each metered usage, by the variables of the breaches above."""
    shown = {first_run_breach(str(usage), {}).variable: 0 for usage in step.run.extent.scope}
    found = _found(step, run_id)
    return shown | {first_run_breach(str(one.waiting.usage), {}).variable: one.keys for one in found}


def fix(step: Step) -> str:
    """What a person does about it, with the commands as they are to be typed."""
    advice = (
        "Counters may hold what the log does not know, such as opening balances of an older system: "
        "look at the keys before anything is changed. "
    )
    earlier = {found.waiting.before for found in _found(step, step.run.run_id) if found.waiting.before is not None}
    for before in sorted(earlier):
        advice += (
            f"If the log does not have all events from before {before.key}: set RECON_START_PERIOD={before.key}, or "
            f'type recon retention --before {before.key} --reason "your reason", and the other months go on. '
        )
    extent, known = step.run.extent, months_of_run_in_the_log(step.database, {})
    if extent.customers is None and (extent.first, extent.last) == known:
        return f"{advice}If the log is right:{step.how_to_approve}"
    return (
        f"{advice}This run covers a part of them. To see all, and how to approve them: {SEE_ALL}. "
        f"To approve this part alone:{step.how_to_approve}"
    )


def accept_approved(step: Step) -> None:
    """Accept what a person has approved for this run, if it covers all that there is; before anything is repaired."""
    usages = [found.waiting.usage for found in _found(step, step.run.run_id)]
    if not usages:
        return
    first, current = months_of_run_in_the_log(step.database, {})
    with step.decision("READ COMMITTED") as (connection, tables):
        covered = [
            usage
            for usage in usages
            if accepted_usages.covers_all(connection, tables, usage, step.run.extent, first=first, current=current)
        ]
        by = {"accepted_by": step.approved_by, "reason": step.approve_reason}
        accepted_usages.accept(connection, covered, first=first, run_id=step.run.run_id, **by)


def accept_matching(step: Step, answer: Verification) -> None:
    """Accept metered usages of which every counter matches at the end of a run, and of which there are any."""
    extent = step.run.extent
    with step.database.transaction() as connection:
        waiting = accepted_usages.waiting(connection, extent.scope, extent.first)
    matching = {verified.usage for verified in answer.verified if not verified.mismatches}
    waiting = tuple(one for one in waiting if one.usage in matching)
    if not waiting:
        return
    first, current = months_of_run_in_the_log(step.database, {})
    with step.decision("READ COMMITTED") as (connection, tables):
        covered = [
            one.usage
            for one in waiting
            if (part := one.part_of(extent)) is not None
            and accepted_usages.has_counters(connection, one.usage, part)
            and accepted_usages.covers_all(connection, tables, one.usage, extent, first=first, current=current)
        ]
        reason = "every counter matched"
        by = {"accepted_by": None, "reason": reason}
        accepted_usages.accept(connection, covered, first=first, run_id=step.run.run_id, **by)


def _found(step: Step, run_id: str) -> tuple[RepairsToAccept, ...]:
    with step.database.transaction() as connection:
        return accepted_usages.repairs_to_accept(connection, run_id)


def _key(month: BillingMonth | None) -> str | None:
    return None if month is None else month.key
