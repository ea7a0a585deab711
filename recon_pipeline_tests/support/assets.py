"""A run of the assets' own code, one after the other, without Dagster's run machinery, which takes longer than it.

For tests of what a run decides. What stops a run in Dagster stops it here: a step that fails, a blocking check.
`recon_pipeline_tests/reconciliation/test_run_of_assets.py` compares both ways.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import dagster as dg

from recon_pipeline.assets.months import range_tags
from recon_pipeline.assets.names import Names
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.assets.reconciler import Reconciler
from recon_pipeline.assets.run_record import close_record
from recon_pipeline.core.periods import BillingMonth, months_between
from recon_pipeline.store.records import runs
from recon_pipeline.store.records.runs import RunRecord
from recon_pipeline_tests.support.defined import (
    counter_drift,
    counters_match_event_sums,
    repaired_counters,
    usage_aggregates,
    usage_events,
)

COMPARING = (usage_events, usage_aggregates, counter_drift)
REPAIRING = (repaired_counters, counters_match_event_sums)
Check = dg.AssetCheckResult | dg.AssetCheckEvaluation


@dataclass
class AssetsRun:
    """What a run left behind.

    Attributes:
        run_id: In schema recon.
        checks: What each asset check said, by its name; if it is evaluated for each month, of the last that failed, or
            the last.
        figures: What was said of single months, by `YYYY-MM`; of the assets that say something of months.
        errors: Everything that failed steps said.
        is_stopped: A blocking check did not pass.
    """

    run_id: str
    checks: dict[str, Check] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: str = ""
    is_stopped: bool = False

    @property
    def success(self) -> bool:
        """Whether Dagster would call the run a success."""
        return not self.errors and not self.is_stopped

    def check(self, name: str) -> Check:
        """What one check said."""
        return self.checks[name]

    @property
    def record(self) -> RunRecord:
        """The run's record in the database that the environment names."""
        with ReconciledDatabase().open().transaction() as connection:
            record = runs.read(connection, self.run_id)
        assert record is not None, f"the run left no record: {self.errors}"
        return record


def run_assets(*, first: str = "2025-05", last: str = "2025-05", **config: Any) -> AssetsRun:
    """One run from the first of these months to the last; the environment says which database, and all settings.

    Args:
        first: First month, `YYYY-MM`.
        last: Last month, included.
        config: What the resource `reconciler` is configured with.
    """
    return _run((*COMPARING, *REPAIRING), first, last, config)


def compare_assets(*, first: str = "2025-05", last: str = "2025-05", **config: Any) -> AssetsRun:
    """The same, without a repair, as `recon reconcile --dry-run`."""
    return _run(COMPARING, first, last, config)


def _run(assets: tuple[Any, ...], first: str, last: str, config: dict[str, Any]) -> AssetsRun:
    run = AssetsRun(str(uuid4()))
    reconciler = Reconciler(**config)
    context = context_of(run.run_id, first, last, reconciler, ReconciledDatabase(), run.figures)
    try:
        for asset in assets:
            blocking = {spec.name for spec in asset.check_specs if spec.blocking}
            for check in checks_of(body_of(asset)(context)):
                name = str(check.check_name)
                if not check.passed or run.checks.get(name, check).passed:
                    run.checks[name] = check
                run.is_stopped |= check.check_name in blocking and not check.passed
            if run.is_stopped:
                return run
        if assets == COMPARING:
            with reconciler.step(context, ReconciledDatabase(), Names()) as step:
                close_record(step.database, run.run_id, "compared", lambda _: None)
    except Exception as error:  # noqa: BLE001 - as Dagster does: whatever a step raises fails it, and ends the run
        run.errors = str(error.description if isinstance(error, dg.Failure) else error) or repr(error)
    finally:
        reconciler.teardown_after_execution(
            context
        )  # which it does not read: one of Dagster's costs as much as the run
    return run


def context_of(
    run_id: str,
    first: str,
    last: str,
    reconciler: Reconciler,
    database: ReconciledDatabase,
    figures: dict[str, dict[str, Any]],
) -> Any:
    """What a step of a run from the first of these months to the last is given.

    What it says of single months is put into `figures`.
    """
    months = BillingMonth.parse(first), BillingMonth.parse(last)
    return SimpleNamespace(
        run=SimpleNamespace(run_id=run_id, tags=range_tags(*months)),
        partition_keys=[month.key for month in months_between(*months)],
        add_asset_metadata=lambda said, partition_key: figures.setdefault(partition_key, {}).update(said),
        log=SimpleNamespace(info=lambda _: None, warning=lambda _: None),
        instance=SimpleNamespace(
            get_records_for_run=lambda *_, **__: SimpleNamespace(records=()),
            fetch_materializations=lambda *_, **__: SimpleNamespace(records=()),
        ),
        asset_key=None,
        resources=SimpleNamespace(reconciler=reconciler, reconciled_database=database),
    )


def body_of(asset: Any) -> Any:
    """The function of an asset or of a check, as it is written."""
    return asset.op.compute_fn.decorated_fn


def checks_of(results: Any) -> Iterable[Check]:
    """What an asset says of its checks."""
    if isinstance(results, (dg.MaterializeResult, dg.AssetCheckResult)):
        results = [results]
    for result in results:
        if isinstance(result, Check):
            yield result
        elif not isinstance(result, dg.Output):
            yield from result.check_results or ()
