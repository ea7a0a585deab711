"""Which earlier run a tick waits for, in whatever way the Dagster instance is configured.

Invariant: a run that was requested and has not started delays the next tick for `START_SECONDS` at most. An instance
without run monitoring would keep it and its place in the lane for ever. So it is reported as failed here, and then
never starts. A run that waits in a queue which the daemon serves is left alone: it starts when its turn comes.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator

START_SECONDS = 120

_BEFORE_START = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
_RUNNING = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
UNFINISHED = [*_BEFORE_START, dg.DagsterRunStatus.QUEUED, *_RUNNING]
"""Statuses of a run that has not ended."""


def run_in_progress(
    instance: dg.DagsterInstance, tags: Mapping[str, str], *, ends_within: timedelta | None = None
) -> str | None:
    """The id of a run with these tags that has not ended; one that never started or was killed is reported as failed.

    Args:
        instance: With the run history.
        tags: Of the runs.
        ends_within: How long such a run takes at most, if there is a limit.
    """
    now = datetime.now(UTC)
    lost_before = now - timedelta(seconds=START_SECONDS)
    in_progress = None
    for record in instance.get_run_records(dg.RunsFilter(tags=tags, statuses=UNFINISHED)):
        run = record.dagster_run
        if _is_waiting_to_start(instance, run.status) and record.update_timestamp.astimezone(UTC) < lost_before:
            instance.report_run_failed(
                run,
                f"It had not started {START_SECONDS} s after it was requested, so the next tick takes its place. "
                "No counter was changed. What to do: look why its process did not start, in the logs of the run "
                "launcher.",
            )
        elif (
            ends_within is not None
            and run.status in _RUNNING
            and record.update_timestamp.astimezone(UTC) < now - ends_within
        ):
            instance.report_run_failed(
                run,
                f"It had not ended {ends_within.seconds // 60} minutes after it started, which it always does: its "
                "process was killed. What it had done stays, and the next run goes on there.",
            )
        else:
            in_progress = run.run_id
    return in_progress


def _is_waiting_to_start(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> bool:
    if status is dg.DagsterRunStatus.QUEUED:
        return not isinstance(instance.run_coordinator, QueuedRunCoordinator)
    return status in _BEFORE_START
