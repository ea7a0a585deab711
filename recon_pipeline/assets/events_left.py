"""Events that left the log: which of them an approval lets through, and the check that shows them.

Invariant: only counters that would change for them are left alone; every other one is repaired without waiting.
"""

from collections.abc import Iterator
from typing import Protocol

import dagster as dg
from sqlalchemy import Connection

from recon_pipeline.assets import by_month
from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.tables import sample
from recon_pipeline.store.counters import doubt_of_events_left
from recon_pipeline.store.counters.events_left import EventsLeft, KeyLeft, MonthLeft, read
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.records import run_metrics
from recon_pipeline.store.sums import quality
from recon_pipeline.store.sums.run import SAMPLE_ROWS, Reconciliation

CHECK = "events_stay_in_the_log"


class Approving(Protocol):
    """What a step knows of the person who approves, and why."""

    @property
    def approve_reason(self) -> str:
        """Why, or '' if nobody approves."""
        ...

    @property
    def approve_run(self) -> str:
        """The beginning of the id of the run that has shown it, or '' for the latest."""
        ...

    @property
    def approved_by(self) -> str:
        """Who."""
        ...


def check_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check, of the asset with this key."""
    return dg.AssetCheckSpec(
        CHECK,
        asset=key,
        partitions_def=BILLING_MONTHS,
        description="No event of the month that runs had counted was deleted, lowered, truncated or detached. Counters "
        "are not lowered for usage that left the log, nor raised for credits that left it, until a person approves it "
        "or declares the months (recon retention).",
    )


def let_through(connection: Connection, run: Reconciliation, tables: BillingTables, by: Approving) -> None:
    """Let counters be changed for what was approved, and record it: in the transaction of the comparison, after it.

    Approved is what an earlier run over the same months and customers has shown, key by key. A run that was blocked has
    shown another question: what left the log waits until that is answered, and the next run shows it. So does
    every counter of a metered usage of which not one event is visible: that the log is empty was all that was shown.
    """
    if not by.approve_reason:
        return
    invisible = quality.invisible_usages(connection, run, tables)
    if invisible:
        doubt_of_events_left.mark_invisible(connection, run, invisible)
    if doubt_of_events_left.let_shown_through(connection, run, named=by.approve_run):
        run_metrics.note_approval(connection, run.run_id, approved_by=by.approved_by, reason=by.approve_reason)


def note(connection: Connection, run: Reconciliation) -> EventsLeft:
    """Record with the run what was left alone."""
    left = read(connection, run.run_id, sample_rows=SAMPLE_ROWS)
    if left.months:
        run_metrics.note_events_left(connection, run.run_id, left)
    return left


def evaluations(
    instance: dg.DagsterInstance,
    asset: dg.AssetKey,
    run: Reconciliation,
    left: EventsLeft,
    *,
    approved: str | None,
    is_blocked: bool,
    how_to_approve: str,
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the check says of each month of the run.

    Args:
        instance: That records it.
        asset: That the check is of.
        run: Which.
        left: And was left alone.
        approved: Who approved that counters are changed for what left, and why, if so.
        is_blocked: The run repairs nothing until something else is approved.
        how_to_approve: What a person types, or clicks, to approve it.
    """
    for month in run.extent.months:
        found = left.of_month(month.key)
        yield by_month.evaluation(
            instance,
            dg.AssetCheckKey(asset, CHECK),
            month,
            passed=found is None,
            severity=dg.AssetCheckSeverity.ERROR,
            description=_described(found, None if is_blocked else how_to_approve) if found else approved,
            metadata={
                "count": found.keys if found else 0,
                "events": found.events if found else 0,
                **({"units": found.units} if found else {}),
                **sample("sample", left.samples.get(month.key, ()), KeyLeft),
            },
        )


def _described(month: MonthLeft, how_to_approve: str | None) -> str:
    """In lines, of which only the second differs from month to month."""
    found = (
        "Usage that counters hold left the log.\n"
        f"{month.partition}: {month.events:,} events of {month.units} units, of {month.keys:,} counters."
    )
    causes = (
        "If it was a mistake: restore the events. If RECON_EVENT_IDENTITY was changed, or this process does not have "
        "it: set it right. "
        "If it was retention: recon retention --before YYYY-MM keeps the counters of the months before. "
    )
    if how_to_approve is None:
        return (
            f"{found}\nThese counters are left as they are, also if what blocks this run is approved. {causes}"
            "If the usage is to be taken back: the next run that is not blocked says how to approve it."
        )
    return (
        f"{found}\nThese counters were left as they are; all others are repaired. {causes}"
        f"If the usage is to be taken back:{how_to_approve}"
    )
