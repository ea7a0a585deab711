"""The table of contents: everything that Dagster knows, in flow order."""

import dagster as dg

from recon_pipeline.assets.application import billing_subscriptions, billing_usage_counters
from recon_pipeline.assets.backfilled_events import backfilled_events
from recon_pipeline.assets.counter_drift import counter_drift
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.repaired_counters import counters_match_event_sums, repaired_counters
from recon_pipeline.assets.usage_aggregates import usage_aggregates
from recon_pipeline.assets.usage_events import usage_events
from recon_pipeline.automation.alert_sensor import alerts
from recon_pipeline.automation.jobs import backfill_usage_events, housekeeping, reconcile
from recon_pipeline.automation.schedules import (
    audit_every_night,
    housekeeping_every_night,
    reconcile_every_5_minutes,
)
from recon_pipeline.automation.undo import undo_repairs

defs = dg.Definitions(
    assets=[
        backfilled_events,
        usage_events,
        usage_aggregates,
        billing_usage_counters,
        billing_subscriptions,
        counter_drift,
        repaired_counters,
    ],
    asset_checks=[counters_match_event_sums],
    jobs=[reconcile, backfill_usage_events, undo_repairs, housekeeping],
    schedules=[reconcile_every_5_minutes, audit_every_night, housekeeping_every_night],
    sensors=[alerts],
    resources={"reconciler": Reconciler()},
    # Also for what a person materializes in the UI: a process for each short step would cost more than the work.
    executor=dg.in_process_executor,
)
