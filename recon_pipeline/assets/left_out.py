"""The checks of a run that is blocked or put off: none of them is shown as "Execution failed".

Dagster shows this for a planned check of a failed run that was not evaluated, as if the check were broken. So an
evaluation is recorded instead that says that the check was not evaluated, and why. It sends no alert.
"""

import dagster as dg

_METADATA = "not_evaluated"

_PLANNED, _EVALUATED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED, dg.DagsterEventType.ASSET_CHECK_EVALUATION


def report(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, why: str) -> None:
    """Record each planned check of the run that has not been evaluated."""
    found: dict[dg.DagsterEventType, set[tuple[dg.AssetKey, str]]] = {_PLANNED: set(), _EVALUATED: set()}
    for record in context.instance.get_records_for_run(context.run.run_id, of_type=set(found)).records:
        event = record.event_log_entry.dagster_event
        if event is not None and event.event_specific_data is not None:
            check = event.event_specific_data
            found[event.event_type].add((check.asset_key, check.check_name))  # pyright: ignore[reportAttributeAccessIssue]
    for asset_key, name in sorted(found[_PLANNED] - found[_EVALUATED]):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=asset_key,
            check_name=name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Not evaluated by this run: {why}.",
            metadata={_METADATA: True},
        )
        event = dg.DagsterEvent(_EVALUATED.value, context.run.job_name, event_specific_data=evaluation)
        context.instance.report_dagster_event(event, context.run.run_id)


def is_left_out(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether it records that its check was not evaluated."""
    return _METADATA in evaluation.metadata
