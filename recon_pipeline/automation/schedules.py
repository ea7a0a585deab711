"""When the pipeline runs: a tick every 5 minutes over the months that need it, an audit of every month each night.

A tick starts no process if nothing has changed since a clean run: the evaluation of the schedule finds that out.
"""

import uuid
from collections.abc import Iterator

import dagster as dg

from recon_pipeline.assets.counters_match_event_sums import still_match
from recon_pipeline.assets.months import PARTITION_TAG, range_tags
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.sealed_counters import BY_ITSELF_TAG
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.automation.unfinished import run_in_progress
from recon_pipeline.core.errors import PutOffError
from recon_pipeline.core.periods import BillingMonth, contiguous_ranges
from recon_pipeline.core.scope import Extent
from recon_pipeline.settings import RECENT_DAYS, known_months
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import open_database
from recon_pipeline.store.records import unchanged
from recon_pipeline.store.records.closing import months_due
from recon_pipeline.store.records.schedule import months_to_reconcile
from recon_pipeline.store.sums import modes
from recon_pipeline.store.sums.run import Reconciliation


def schedules(ours: Installation) -> list[dg.ScheduleDefinition]:
    """Tick, audit and housekeeping of that installation."""
    names = ours.names

    @dg.schedule(
        name=names.of("reconcile_every_5_minutes"),
        job_name=names.of("reconcile"),
        cron_schedule="*/5 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reconcile the months that are open or ended recently, and older ones that changed. Where nothing "
        "changed since a clean run of the last hour, that one is confirmed, without a run.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from _tick(context, ours)

    @dg.schedule(
        name=names.of("audit_every_night"),
        job_name=names.of("reconcile"),
        cron_schedule="40 2 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Reconcile every month from the log itself, and check the stored sums against it, once a night.",
    )
    def audit() -> dg.RunRequest:
        """One run over all months, with sums from the log itself."""
        return dg.RunRequest(
            tags={**range_tags(*known_months()), **ours.lane("audit")},
            run_config=dg.RunConfig(resources={names.reconciler: Reconciler(full=True)}),
        )

    @dg.schedule(
        name=names.of("housekeeping_every_night"),
        job_name=names.of("housekeeping"),
        cron_schedule="10 4 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Delete our old runs and old drift rows.",
    )
    def clean() -> dg.RunRequest:
        """One run."""
        return dg.RunRequest()

    @dg.schedule(
        name=names.of("seal_closed_months"),
        job_name=names.of("seal_months"),
        cron_schedule="20 5 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Seal each month that ended RECON_SEAL_AFTER_DAYS ago, if that is set. One that cannot be sealed "
        "yet is tried again the next day.",
    )
    def seal(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from _due(context, ours)

    return [tick, audit, clean, seal]


def _due(context: dg.ScheduleEvaluationContext, ours: Installation) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run for each month that is due to be sealed."""
    settings = ours.database.settings()
    if not settings.seal_after_days:
        yield dg.SkipReason("RECON_SEAL_AFTER_DAYS is not set: a person seals months (recon seal).")
        return
    with open_database(settings).transaction() as connection:
        months = months_due(connection, settings.scope, after_days=settings.seal_after_days)
    day = context.scheduled_execution_time.date().isoformat()
    for month in months:
        tags = {PARTITION_TAG: month.key, BY_ITSELF_TAG: "true", **ours.lane("seal")}
        yield dg.RunRequest(run_key=f"seal/{day}/{month.key}", tags=tags)
    if not months:
        yield dg.SkipReason("Every month that is due is sealed.")


def _tick(context: dg.ScheduleEvaluationContext, ours: Installation) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run for each contiguous range of months that changed; none while runs of an earlier tick are in progress."""
    settings = ours.database.settings()
    first, last = known_months()
    changed: list[tuple[BillingMonth, BillingMonth]] = []
    confirmed: list[dg.AssetCheckEvaluation] = []
    try:
        with (
            open_database(settings).connection() as connection,
            decision(connection, "REPEATABLE READ") as tables,
        ):
            # Not by code location, which a schedule cannot get from Dagster.
            of_ticks = {**own_tag(connection), **ours.lane("tick")}
            unfinished = run_in_progress(context.instance, of_ticks)
            if unfinished:
                yield dg.SkipReason(f"Run {unfinished} of an earlier tick has not ended.")
                return
            mode = modes.choose(connection, tables).mode
            extent = Extent(settings.scope, first, last)
            months = months_to_reconcile(connection, extent, tables, recent_days=RECENT_DAYS, mode=mode)
            for start, end in contiguous_ranges((*months, last)):
                question = Reconciliation.of(settings, str(uuid.uuid4()), Extent(settings.scope, start, end))
                still_true = unchanged.confirm(connection, question, tables, mode=mode)
                if still_true is None:
                    changed.append((start, end))
                else:
                    confirmed.append(still_match(ours.names, start, end, still_true))
    except PutOffError as put_off:
        yield dg.SkipReason(put_off.what)
        return
    for evaluation in confirmed:
        context.instance.report_runless_asset_event(evaluation)
    tick = context.scheduled_execution_time.isoformat()
    for start, end in changed:
        yield dg.RunRequest(run_key=f"{tick}/{start.key}", tags={**range_tags(start, end), **of_ticks})
    if not changed:
        yield dg.SkipReason(" ".join(evaluation.description or "" for evaluation in confirmed))
