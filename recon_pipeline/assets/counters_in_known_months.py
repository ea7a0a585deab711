"""The check that reports counters in no known month, which no run compares."""

import dagster as dg

from recon_pipeline.assets.reconciler import Step
from recon_pipeline.assets.tables import sample
from recon_pipeline.settings import known_months, start_period_is_declared
from recon_pipeline.store.counters import counters_beyond_months
from recon_pipeline.store.log.billing_tables import BillingTables
from recon_pipeline.store.records import runs

NAME = "counters_are_in_known_months"


def spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    """The check's description."""
    return dg.AssetCheckSpec(
        NAME,
        asset=asset,
        description="Each counter's period begins in a month from RECON_START_PERIOD to next month. If that variable "
        "is set, earlier periods are left out on purpose. No run compares other counters, such as lifetime counters: "
        "they are left as they are.",
    )


def counters_are_in_known_months(step: Step, tables: BillingTables) -> dg.AssetCheckResult:
    """Count them: all in an audit and in full mode, else those that an index shows."""
    first, current = known_months()
    last = current.next()  # whose counters may come a little early
    with step.database.transaction() as connection:
        reads_all = runs.reads_all(connection, step.run.run_id)
        if not reads_all and not tables.finds_counter_periods:
            return _result(
                True,
                "Not checked by this run, which would have to read every counter: no index begins "
                "with period_start. The nightly audit looks, and so does recon reconcile --full.",
                {},
            )
        beyond = counters_beyond_months.find_counters_beyond(
            connection, step.run.extent.scope, first=first, last=last, every=reads_all
        )
    is_declared = start_period_is_declared()
    return _result(
        beyond.later_count == 0 and (beyond.earlier_count == 0 or is_declared),
        counters_beyond_months.described(beyond, first=first, last=last, is_declared=is_declared),
        {"count": beyond.counter_count, **sample("sample", beyond.sample, counters_beyond_months.CounterBeyond)},
    )


def _result(passed: bool, description: str | None, metadata: dict[str, dg.MetadataValue | int]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=NAME,
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=metadata,
    )
