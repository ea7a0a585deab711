"""Says in Dagster of months that no run compares any more that checks fail no longer in them: no run would ever say it.

Knows only checks that are about single months; a later run says what the others find.
"""

import logging
from collections.abc import Iterable

import dagster as dg
from sqlalchemy.exc import IntegrityError

from recon_pipeline.assets import by_month, counters_match_event_sums, events_left
from recon_pipeline.assets.names import Names
from recon_pipeline.core.alerts import Observation

_ASSETS = {counters_match_event_sums.NAME: "repaired_counters", events_left.CHECK: "counter_drift"}

_log = logging.getLogger(__name__)


def report(instance: dg.DagsterInstance, names: Names, left_out: Iterable[Observation]) -> None:
    """Record an evaluation without a run for each month.

    Args:
        instance: Where.
        names: Of our assets.
        left_out: By subject, the months in which it failed and that no run compares any more.
    """
    for one in left_out:
        if one.subject not in _ASSETS:
            continue
        check = dg.AssetCheckKey(names.key(_ASSETS[one.subject]), one.subject)
        for month in sorted(one.months):
            evaluation = by_month.evaluation(
                instance,
                check,
                month,
                passed=True,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"No run compares {month.key} any more: recon retention or RECON_START_PERIOD begins after "
                "it. Its counters stay as they are.",
                metadata={},
            )
            try:
                instance.report_runless_asset_event(evaluation)
            except IntegrityError:  # Dagster keeps one evaluation of a month without a run, for good
                _log.info("%s of %s has been evaluated without a run before.", one.subject, month.key)
