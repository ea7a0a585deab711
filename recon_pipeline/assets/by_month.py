"""Results of checks that are about single months: each month of a run gets an evaluation of its own.

Invariant: an evaluation names its month, so a run over other months leaves its result as it is. Dagster gives a check
of a run over several months one result without a month, so the evaluations are yielded here with theirs.
"""

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from recon_pipeline.core.periods import BillingMonth


def evaluation(
    instance: dg.DagsterInstance,
    check: dg.AssetCheckKey,
    month: BillingMonth,
    *,
    passed: bool,
    severity: dg.AssetCheckSeverity,
    description: str | None,
    metadata: Mapping[str, Any],
) -> dg.AssetCheckEvaluation:
    """What a check, which does not block, says of one month."""
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=passed,
        severity=severity,
        description=description,
        metadata=metadata,
        blocking=False,
        partition=month.key,
        target_materialization_data=_materialized(instance, check.asset_key, month),
    )


def output(asset: dg.AssetsDefinition, check: str) -> dg.Output[None]:
    """Says to Dagster that the step of an asset evaluates this check of it; for other checks, Dagster does that."""
    return dg.Output(None, next(name for name, spec in asset.check_specs_by_output_name.items() if spec.name == check))


def in_words(descriptions: Iterable[str | None]) -> str:
    """What a check says of several months, in lines: what it says of all of them alike is said once."""
    lines = zip_longest(*((one or "").splitlines() for one in descriptions))
    return "\n".join(dict.fromkeys(line for of_months in lines for line in of_months if line))


def _materialized(
    instance: dg.DagsterInstance, asset: dg.AssetKey, month: BillingMonth
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The latest materialization of the month: Dagster shows the check as evaluated only if it names that one."""
    latest = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[month.key]), limit=1
    ).records
    return (
        AssetCheckEvaluationTargetMaterializationData(
            storage_id=latest[0].storage_id, run_id=latest[0].run_id, timestamp=latest[0].timestamp
        )
        if latest
        else None
    )
