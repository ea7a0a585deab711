"""The checks of a run that is blocked or put off: none of them is shown as "Execution failed".

Dagster shows this for a planned check of a failed run that was not evaluated, as if the check were broken. So an
evaluation is recorded instead, for each month if the check is planned by months, that says that the check was not
evaluated, and why. It sends no alert.
"""

import dagster as dg

_METADATA = "not_evaluated"

_Check = tuple[dg.AssetKey, str, str | None]
_PLANNED, _EVALUATED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION


def report(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, why: str) -> None:
    """Record each planned check of the run that has not been evaluated."""
    planned: set[_Check] = set()
    evaluated: set[_Check] = set()
    of_type = {_PLANNED, _EVALUATED}
    for record in context.instance.get_records_for_run(context.run.run_id, of_type=of_type).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.event_type is _PLANNED:
            check = event.asset_check_planned_data
            months = check.partitions_subset.get_partition_keys() if check.partitions_subset else [None]
            planned |= {(check.asset_key, check.check_name, month) for month in months}
        else:
            check = event.asset_check_evaluation_data
            evaluated.add((check.asset_key, check.check_name, check.partition))
    for asset_key, name, month in sorted(planned - evaluated, key=str):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=asset_key,
            check_name=name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Not evaluated by this run: {why}.",
            metadata={_METADATA: True},
            partition=month,
        )
        event = dg.DagsterEvent(_EVALUATED.value, context.run.job_name, event_specific_data=evaluation)
        context.instance.report_dagster_event(event, context.run.run_id)


def is_left_out(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether it records that its check was not evaluated."""
    return _METADATA in evaluation.metadata
