"""The event log as a run finds it. Reads only; the log is the application's and sacred."""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets.months import BILLING_MONTHS
from recon_pipeline.assets.reconciler import MODE, Reconciler, Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.store import events, runs
from recon_pipeline.store.billing_tables import BillingTables, require_trustworthy

_KEY = dg.AssetKey("usage_events")

_CHECKS = [
    dg.AssetCheckSpec(
        "event_log_is_visible",
        asset=_KEY,
        blocking=True,
        description="At least one event is visible in each metered usage that has counters. "
        "An empty log beside counters is a lost log, and repairing from it would give all usage away.",
    ),
    dg.AssetCheckSpec(
        "events_are_valid",
        asset=_KEY,
        description="Every event has a positive, finite quantity and a period that ends after it begins. "
        "Others are never summed.",
    ),
    dg.AssetCheckSpec(
        "request_ids_are_unique",
        asset=_KEY,
        description="Each request id of a gateway occurs once. Where it occurs again, only the first counts.",
    ),
    dg.AssetCheckSpec(
        "events_lie_in_their_period",
        asset=_KEY,
        description="Each event_timestamp lies in the event's own billing period. Others are summed all the same: "
        "the period is what was billed.",
    ),
]


@dg.asset(
    key=_KEY,
    partitions_def=BILLING_MONTHS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=_CHECKS,
    group_name="billing_usage",
    owners=["team:billing"],
    kinds={"postgres"},
    description="The metered actions of a billing month in `billing_usage_events`: how many there are, "
    "how many of them count, and what is odd about the others.",
)
def usage_events(context: dg.AssetExecutionContext, reconciler: Reconciler) -> Iterator[dg.MaterializeResult]:
    """Take the log's horizon and measure its quality."""
    with reconciler.step(context) as step:
        with step.database.transaction("REPEATABLE READ") as connection:
            tables = require_trustworthy(connection)
            start = runs.start(connection, step.run, mode=MODE)
            quality = events.measure(connection, step.run, tables, since=start.previous_started_at)
            runs.note_events(connection, step.run.run_id, quality)
            odd = {
                invalid: events.sample_odd(connection, step.run, tables, invalid=invalid)
                for invalid, count in ((True, quality.invalid_count), (False, quality.outside_period_count))
                if count
            }
        yield dg.MaterializeResult(
            metadata={
                "months": step.months,
                "mode": MODE,
                "horizon": start.horizon,
                "events_scanned": quality.events_scanned,
                "new_events": quality.new_count,
                "invalid_events": quality.invalid_count,
                "dedupe_count": quality.dedupe_count,
                "outside_period_events": quality.outside_period_count,
            },
            check_results=[
                _visible(step, tables),
                _warning(
                    "events_are_valid",
                    quality.invalid_count,
                    "events are invalid and were not summed. Find their producer by request_id; "
                    "the log itself is never changed.",
                    odd.get(True, ()),
                ),
                _warning(
                    "request_ids_are_unique",
                    quality.dedupe_count,
                    "events repeat a request id and were not summed. A unique index on "
                    "(gateway_name, request_id) keeps them out.",
                    (),
                ),
                _warning(
                    "events_lie_in_their_period",
                    quality.outside_period_count,
                    "events were billed in a period that does not hold their timestamp. They are summed; "
                    "look at the clock and the period choice of their producer.",
                    odd.get(False, ()),
                ),
            ],
        )


def _visible(step: Step, tables: BillingTables) -> dg.AssetCheckResult:
    lost = step.lost_log(tables)
    if lost is None:
        return dg.AssetCheckResult(check_name="event_log_is_visible", passed=True)
    if step.approve_reason:
        step.record_approval()
        return dg.AssetCheckResult(
            check_name="event_log_is_visible",
            passed=True,
            description=f"{lost.what} Approved by {step.approved_by}: {step.approve_reason}",
        )
    step.finish("blocked", error=str(lost))
    return dg.AssetCheckResult(check_name="event_log_is_visible", passed=False, description=str(lost))


def _warning(name: str, count: int, sentence: str, odd: tuple[events.OddEvent, ...]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=name,
        passed=count == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{count:,} {sentence}" if count else None,
        metadata={"count": count, **sample("sample", odd, events.OddEvent)},
    )
