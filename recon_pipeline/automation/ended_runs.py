"""Reads from Dagster which of our runs ended, and the results of their checks.

Invariant: a run is read again for `OVERLAP_MINUTES` after it ended, because runs become visible slightly out of order;
the caller skips the runs that it knows.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import quote

import dagster as dg

from recon_pipeline.assets.left_out import is_left_out
from recon_pipeline.assets.months import months_of_run
from recon_pipeline.automation.own_runs import MATERIALIZED_IN_THE_UI, OwnRuns
from recon_pipeline.core.alerts import Severity
from recon_pipeline.core.ended_runs import CheckOutcome, EndedRun, Ending
from recon_pipeline.core.errors import ConfigurationError, printable
from recon_pipeline.core.periods import BillingMonth, months_between

OVERLAP_MINUTES = 10
RUNS_AT_ONCE = 300
"""In one evaluation of the sensor, which Dagster cancels after 60 seconds; the next one continues from there."""

ROWS_SHOWN = 5
LONGEST_DETAILS = 1_500
LONGEST_ROW = 300

_ENDINGS = {
    dg.DagsterRunStatus.SUCCESS: Ending.SUCCEEDED,
    dg.DagsterRunStatus.FAILURE: Ending.FAILED,
    dg.DagsterRunStatus.CANCELED: Ending.CANCELED,
}


def ended_runs(instance: dg.DagsterInstance, ours: OwnRuns, *, since: datetime, ui_url: str) -> Iterator[EndedRun]:
    """The first of our runs that ended after that time, or shortly before, in the order in which they ended."""
    after = since.astimezone(UTC) - timedelta(minutes=OVERLAP_MINUTES)
    for record in islice(ours.ended(instance, after=after), RUNS_AT_ONCE):
        run = record.dagster_run
        ending = _ENDINGS[run.status]
        reconciles = run.job_name in (ours.names.of("reconcile"), MATERIALIZED_IN_THE_UI)
        yield EndedRun(
            run_id=run.run_id,
            ended_at=record.update_timestamp,
            job=run.job_name,
            ending=ending,
            months=_months(run.tags) if reconciles else None,
            failure=_failure(instance, run.run_id) if ending is Ending.FAILED else "",
            link=f"{ui_url}/runs/{run.run_id}" if ui_url else "",
            checks=tuple(_checks(instance, run.run_id, ui_url)),
        )


def check_page(asset: Sequence[str], check: str) -> str:
    """The path of a check's page in the UI."""
    return f"/assets/{'/'.join(quote(part, safe='') for part in asset)}?view=checks&checkDetail={quote(check)}"


def _months(tags: Mapping[str, str]) -> tuple[BillingMonth, ...]:
    try:
        return months_between(*months_of_run(dict(tags)))
    except ConfigurationError:  # an invalid partition name, which the run itself has reported
        return ()


def _checks(instance: dg.DagsterInstance, run_id: str, ui_url: str) -> Iterator[CheckOutcome]:
    for event in _events(instance, run_id, {dg.DagsterEventType.ASSET_CHECK_EVALUATION}):
        evaluation = event.asset_check_evaluation_data
        if is_left_out(evaluation):
            continue
        severity = Severity.ERROR if evaluation.severity is dg.AssetCheckSeverity.ERROR else Severity.WARN
        yield CheckOutcome(
            name=evaluation.check_name,
            severity=None if evaluation.passed else severity,
            is_blocking=bool(evaluation.blocking),
            details="" if evaluation.passed else _details(evaluation, run_id, ui_url),
        )


def _details(evaluation: dg.AssetCheckEvaluation, run_id: str, ui_url: str) -> str:
    """The check's description with what to do, its exact counts, a capped sample, and where to look."""
    lines = [(evaluation.description or "The check gave no description.")[:LONGEST_DETAILS]]
    counts = [
        f"{name} {value.value:,}"
        for name, value in evaluation.metadata.items()
        if isinstance(value, dg.IntMetadataValue) and value.value is not None
    ]
    lines += [", ".join(counts)] if counts else []
    for value in evaluation.metadata.values():
        if isinstance(value, dg.TableMetadataValue):
            lines += _sample(value)
            break
    if ui_url:
        lines.append(f"{ui_url}{check_page(evaluation.asset_key.path, evaluation.check_name)}")
    lines.append(f"Run {run_id}. Runbook: docs/runbook.md, {evaluation.check_name}.")
    return "\n".join(lines)


def _sample(table: dg.TableMetadataValue) -> Iterator[str]:
    for record in table.records[:ROWS_SHOWN]:
        values = ((column.name, record.data.get(column.name)) for column in table.schema.columns)
        row = ", ".join(f"{name} {value}" for name, value in values if value not in (None, ""))
        yield "  " + printable(row).replace("\n", "\\n")[:LONGEST_ROW]
    if len(table.records) > ROWS_SHOWN:
        yield f"  ... the first {ROWS_SHOWN}; the check's page shows {len(table.records)}"


def _failure(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why the run failed: the message of the failed step, else Dagster's."""
    message = ""
    for event in _events(instance, run_id, {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.PIPELINE_FAILURE}):
        if event.is_step_failure:
            failure, error = event.step_failure_data.user_failure_data, event.step_failure_data.error
            message = (failure and failure.description) or (error and error.message) or ""
        else:
            message = message or event.message or ""
    return message.strip()[:LONGEST_DETAILS]


def _events(instance: dg.DagsterInstance, run_id: str, kinds: set[dg.DagsterEventType]) -> Iterator[dg.DagsterEvent]:
    for record in instance.get_records_for_run(run_id, of_type=kinds).records:
        if record.event_log_entry.dagster_event is not None:
            yield record.event_log_entry.dagster_event
