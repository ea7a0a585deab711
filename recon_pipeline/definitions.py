"""The table of contents: everything that Dagster knows of an installation, in flow order.

`build_definitions` is for those who embed it in a code location of their own (docs/existing-dagster.md); `defs` is the
code location of its own, named by the environment.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from recon_pipeline.assets.application import application_tables
from recon_pipeline.assets.archived_events import archived_events
from recon_pipeline.assets.backfilled_events import backfilled_events
from recon_pipeline.assets.counter_drift import counter_drift
from recon_pipeline.assets.counters_match_event_sums import counters_match_event_sums
from recon_pipeline.assets.lake_engine import LakeEngine
from recon_pipeline.assets.lake_event_sums import lake_event_sums
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.repaired_counters import repaired_counters
from recon_pipeline.assets.sealed_counters import sealed_counters
from recon_pipeline.assets.stripe_parity import stripe_parity
from recon_pipeline.assets.usage_aggregates import usage_aggregates
from recon_pipeline.assets.usage_events import usage_events
from recon_pipeline.automation.alert_sensor import alerts
from recon_pipeline.automation.housekeeping import housekeeping
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.jobs import archive_months, backfill_usage_events, count_lake, reconcile, seal_months
from recon_pipeline.automation.parity import compare_with_stripe, every_hour
from recon_pipeline.automation.schedules import schedules
from recon_pipeline.automation.undo import undo_repairs
from recon_pipeline.settings import read_name


def build_definitions(
    *,
    name: str | None = None,
    database: ReconciledDatabase | None = None,
    engine: LakeEngine | None = None,
    run_tags: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Everything of one installation, to be merged with definitions of others (`dg.Definitions.merge`).

    It has no executor, logger or IO manager: each job has its own executor.

    Args:
        name: Distinguishes it from other installations and from jobs of the same names; a letter, then letters, digits
            and single `_`. None: what `RECON_NAME` says; by default it has none.
        database: The billing database with what is reconciled in it. None: what the environment says.
        engine: What counts its lake. None: what the environment says.
        run_tags: Tags of each run, for example `dagster-k8s/config`.

    Raises:
        ConfigurationError: The name, `RECON_NAME` or a field of the database cannot be used.
    """
    names = Names(read_name() if name is None else read_name({"RECON_NAME": name}))
    ours = Installation(names, database or ReconciledDatabase(), engine or LakeEngine(), run_tags or {})
    ours.database.require_valid()
    observes_stripe = ours.database.observes_stripe()
    return dg.Definitions(
        assets=[
            backfilled_events(names),
            lake_event_sums(names),
            usage_events(names),
            usage_aggregates(names),
            *application_tables(names),
            counter_drift(names),
            repaired_counters(names),
            sealed_counters(names),
            archived_events(names),
            *([stripe_parity(names)] if observes_stripe else []),
        ],
        asset_checks=[counters_match_event_sums(names)],
        jobs=[
            reconcile(ours),
            backfill_usage_events(ours),
            undo_repairs(ours),
            count_lake(ours),
            seal_months(ours),
            archive_months(ours),
            *([compare_with_stripe(ours)] if observes_stripe else []),
            housekeeping(ours),
        ],
        schedules=[*schedules(ours), *([every_hour(ours)] if observes_stripe else [])],
        sensors=[alerts(ours)],
        resources=ours.resources,
    )


defs = dg.Definitions.merge(
    build_definitions(),
    # Also for what a person materializes in the UI: a process for each short step would cost more than the work.
    dg.Definitions(executor=dg.in_process_executor),
)
