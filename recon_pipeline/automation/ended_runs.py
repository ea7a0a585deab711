"""Reads from Dagster which of our runs ended, and the results of their checks.

Invariant: a run is read again for `OVERLAP_MINUTES` after it ended, because runs become visible slightly out of order;
the caller skips the runs that it knows.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from urllib.parse import quote

import dagster as dg

from recon_pipeline.assets import by_month
from recon_pipeline.assets.left_out import is_left_out
from recon_pipeline.assets.months import months_of_run
from recon_pipeline.automation.own_runs import MATERIALIZED_IN_THE_UI, OwnRuns
from recon_pipeline.core.alerts import Severity
from recon_pipeline.core.ended_runs import CheckOutcome, EndedRun, Ending
from recon_pipeline.core.errors import ConfigurationError, one_line
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
        months = _months(run.tags) if reconciles else None
        yield EndedRun(
            run_id=run.run_id,
            ended_at=record.update_timestamp,
            job=run.job_name,
            ending=ending,
            months=months,
            failure=_failure(instance, run.run_id) if ending is Ending.FAILED else "",
            link=f"{ui_url}/runs/{run.run_id}" if ui_url else "",
            checks=tuple(_checks(instance, run.run_id, frozenset(months or ()), ui_url)),
        )


def check_page(asset: Sequence[str], check: str) -> str:
    """The path of a check's page in the UI."""
    return f"/assets/{'/'.join(quote(part, safe='') for part in asset)}?view=checks&checkDetail={quote(check)}"


def _months(tags: Mapping[str, str]) -> tuple[BillingMonth, ...]:
    try:
        return months_between(*months_of_run(dict(tags)))
    except ConfigurationError:  # an invalid partition name, which the run itself has reported
        return ()


def _checks(
    instance: dg.DagsterInstance, run_id: str, months: frozenset[BillingMonth], ui_url: str
) -> Iterator[CheckOutcome]:
    evaluations: dict[dg.AssetCheckKey, list[dg.AssetCheckEvaluation]] = {}
    for event in _events(instance, run_id, {dg.DagsterEventType.ASSET_CHECK_EVALUATION}):
        evaluation = event.asset_check_evaluation_data
        if not is_left_out(evaluation):
            evaluations.setdefault(evaluation.asset_check_key, []).append(evaluation)
    for check, of_months in evaluations.items():
        failed = [one for one in of_months if not one.passed]
        passed = [one for one in of_months if one.passed]
        is_error = any(one.severity is dg.AssetCheckSeverity.ERROR for one in failed)
        yield CheckOutcome(
            name=check.name,
            severity=(Severity.ERROR if is_error else Severity.WARN) if failed else None,
            failed_months=_months_of(failed, months),
            passed_months=_months_of(passed, months),
            is_blocking=any(one.blocking for one in of_months),
            details=_details(failed, run_id, ui_url) if failed else "",
        )


def _months_of(
    evaluations: Sequence[dg.AssetCheckEvaluation], of_run: frozenset[BillingMonth]
) -> frozenset[BillingMonth]:
    """The months that these are about: each its own, or those of the run."""
    named = {BillingMonth.parse(one.partition) for one in evaluations if one.partition}
    return frozenset(named) if named else of_run if evaluations else frozenset()


def _details(failed: Sequence[dg.AssetCheckEvaluation], run_id: str, ui_url: str) -> str:
    """The check's description of each month that failed with what to do, its exact counts, a sample, where to look."""
    check = failed[0].asset_check_key
    said = by_month.in_words(one.description for one in failed) or "The check gave no description."
    lines = [said[:LONGEST_DETAILS]]
    counts: Counter[str] = Counter()
    for one in failed:
        counts.update(
            {
                name: value.value
                for name, value in one.metadata.items()
                if isinstance(value, dg.IntMetadataValue) and value.value is not None
            }
        )
    lines += [", ".join(f"{name} {count:,}" for name, count in counts.items())] if counts else []
    tables = (value for one in failed for value in one.metadata.values() if isinstance(value, dg.TableMetadataValue))
    table = next(tables, None)
    lines += _sample(table) if table else ()
    if ui_url:
        lines.append(f"{ui_url}{check_page(check.asset_key.path, check.name)}")
    lines.append(f"Run {run_id}. Runbook: docs/runbook.md, {check.name}.")
    return "\n".join(lines)


def _sample(table: dg.TableMetadataValue) -> Iterator[str]:
    for record in table.records[:ROWS_SHOWN]:
        values = ((column.name, record.data.get(column.name)) for column in table.schema.columns)
        row = ", ".join(f"{name} {value}" for name, value in values if value not in (None, ""))
        yield "  " + one_line(row)[:LONGEST_ROW]
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
