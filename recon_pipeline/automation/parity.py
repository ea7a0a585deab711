"""When the log is compared with Stripe's meters: once an hour, over the months that it can still be billed for."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from recon_pipeline.assets.months import range_tags
from recon_pipeline.assets.parity_pass import LONGEST_PASS
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.jobs import asset_job
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.automation.unfinished import run_in_progress
from recon_pipeline.core.parity.metering import metered
from recon_pipeline.core.periods import contiguous_ranges
from recon_pipeline.core.scope import Extent
from recon_pipeline.providers.stripe import require_stripe
from recon_pipeline.settings import RECENT_DAYS, known_months
from recon_pipeline.store.parity.months import months_to_compare
from recon_pipeline.store.postgres.database import open_database

_GRACE = timedelta(minutes=5)
"""A run that ends by itself has ended by then; still before the next hour's."""


def compare_with_stripe(ours: Installation) -> UnresolvedAssetJobDefinition:
    """Compare the log with Stripe's meters."""
    require_stripe()
    return asset_job(
        ours,
        "compare_with_stripe",
        ours.names.key("stripe_parity"),
        description="Compare what the log says was sent with what Stripe's meters have. Writes nothing to Stripe.",
        lane="parity",
    )


def every_hour(ours: Installation) -> dg.ScheduleDefinition:
    """The schedule of that job."""

    @dg.schedule(
        name=ours.names.of("compare_with_stripe_every_hour"),
        job_name=ours.names.of("compare_with_stripe"),
        cron_schedule="7 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compare with Stripe's meters the keys of periods that are open or ended in the last 35 days: "
        "those that changed, those whose invoice is nearly final, and each open one once a day.",
    )
    def compare(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        yield from _requests(context, ours)

    return compare


def _requests(context: dg.ScheduleEvaluationContext, ours: Installation) -> Iterator[dg.RunRequest | dg.SkipReason]:
    settings = ours.database.settings()
    extent = Extent(metered(settings.scope, ours.database.parity().meters), *known_months())
    with open_database(settings).transaction() as connection:
        tags = {**own_tag(connection), **ours.lane("parity")}
        unfinished = run_in_progress(context.instance, tags, ends_within=LONGEST_PASS + _GRACE)
        months = () if unfinished else months_to_compare(connection, extent, recent_days=RECENT_DAYS)
    if unfinished:
        yield dg.SkipReason(f"Run {unfinished} of an earlier hour has not ended.")
        return
    hour = context.scheduled_execution_time.isoformat()
    for first, last in contiguous_ranges(months):
        yield dg.RunRequest(run_key=f"parity/{hour}/{first.key}", tags={**range_tags(first, last), **tags})
    if not months:
        yield dg.SkipReason("No counter has a period that is open or ended lately.")
