"""The first run that may repair a metered usage: it waits for an approval, unless there is nothing to repair.

Invariant: no counter of a metered usage is changed before somebody has seen all that would be changed of it, or a run
has found all of it matching. Seeing a part approves that part and no more: only a run over all that there is accepts.
"""

from recon_pipeline.assets.months import months_of_run_in_the_log
from recon_pipeline.assets.reconciler import Step
from recon_pipeline.core.approving import SEE_ALL
from recon_pipeline.core.guards import Breach, first_run_breach
from recon_pipeline.store.counters.verify import Verification
from recon_pipeline.store.records import accepted_usages


def breaches(step: Step) -> tuple[Breach, ...]:
    """One for each metered usage that waits for its first approval and of which this run would change anything."""
    with step.database.transaction() as connection:
        usages = accepted_usages.waiting(connection, step.run.extent.scope)
        found = accepted_usages.repairs_by_usage(connection, step.run.run_id) if usages else {}
    return tuple(
        first_run_breach(str(usage), found[usage].by_kind, found[usage].largest) for usage in usages if usage in found
    )


def shown(step: Step, run_id: str) -> dict[str, int]:
    """What another run would have changed of each metered usage, by the variables of the breaches above."""
    with step.database.transaction() as connection:
        found = accepted_usages.repairs_by_usage(connection, run_id)
    shown = {first_run_breach(str(usage), {}).variable: 0 for usage in step.run.extent.scope}
    return shown | {first_run_breach(str(usage), {}).variable: found[usage].keys for usage in found}


def fix(step: Step) -> str:
    """What a person does about it, with the commands as they are to be typed."""
    advice = (
        "Counters may hold what the log does not know, such as opening balances of an older system: "
        "look at the keys before anything is changed. "
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
    with step.database.transaction() as connection:
        usages = accepted_usages.waiting(connection, step.run.extent.scope)
        if not usages:
            return
        found = accepted_usages.repairs_by_usage(connection, step.run.run_id)
    first, current = months_of_run_in_the_log(step.database, {})
    with step.decision("READ COMMITTED") as (connection, tables):
        covered = [
            usage
            for usage in usages
            if usage in found
            and accepted_usages.covers_all(connection, tables, usage, step.run.extent, first=first, current=current)
        ]
        accepted_usages.accept(
            connection, covered, accepted_by=step.approved_by, reason=step.approve_reason, run_id=step.run.run_id
        )


def accept_matching(step: Step, answer: Verification) -> None:
    """Accept metered usages of which every counter matches at the end of a run, and of which there are any."""
    with step.database.transaction() as connection:
        usages = accepted_usages.waiting(connection, step.run.extent.scope)
    matching = {verified.usage for verified in answer.verified if not verified.mismatches}
    usages = tuple(usage for usage in usages if usage in matching)
    if not usages:
        return
    first, current = months_of_run_in_the_log(step.database, {})
    with step.decision("READ COMMITTED") as (connection, tables):
        covered = [
            usage
            for usage in usages
            if accepted_usages.has_counters(connection, usage, step.run.extent)
            and accepted_usages.covers_all(connection, tables, usage, step.run.extent, first=first, current=current)
        ]
        reason = "every counter matched"
        accepted_usages.accept(connection, covered, accepted_by=None, reason=reason, run_id=step.run.run_id)
