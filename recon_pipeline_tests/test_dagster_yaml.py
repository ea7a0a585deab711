"""The repository's `dagster.yaml` and `workspace.yaml`: what they promise holds in a real instance."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

from recon_pipeline_tests.support.dagster import DAGSTER_YAML

Tags = Mapping[str, str]
SAME_PARTITION = {"dagster/partition": "2026-01"}
TICK = {"recon/lane": "tick"}
SAME_RANGE = {"dagster/asset_partition_range_start": "2026-01", "dagster/asset_partition_range_end": "2026-03"}


def add_run(instance: DagsterInstance, tags: Tags, status: DagsterRunStatus = DagsterRunStatus.QUEUED) -> DagsterRun:
    """Record a run, by default as one that waits in the queue."""
    location = RegisteredCodeLocationOrigin("recon_pipeline")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "reconcile")
    return create_run_for_test(instance, "reconcile", status=status, tags=dict(tags), remote_job_origin=origin)


def dequeued(instance: DagsterInstance) -> list[str]:
    """Which runs the daemon would launch now."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    runs = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), fixed_iteration_time=None)
    return [run.run_id for run in runs]


def test_runs_of_one_lane_are_started_one_after_the_other(dagster_instance: DagsterInstance) -> None:
    running = add_run(dagster_instance, TICK, DagsterRunStatus.STARTED)
    first, second = add_run(dagster_instance, TICK), add_run(dagster_instance, TICK)
    assert dequeued(dagster_instance) == []

    dagster_instance.report_run_canceled(running)
    assert dequeued(dagster_instance) == [first.run_id]

    dagster_instance.report_run_canceled(first)
    assert dequeued(dagster_instance) == [second.run_id]


def test_runs_of_different_lanes_do_not_wait_for_each_other(dagster_instance: DagsterInstance) -> None:
    runs = [add_run(dagster_instance, {"recon/lane": lane}) for lane in ("tick", "audit")]

    assert dequeued(dagster_instance) == [run.run_id for run in runs]


@pytest.mark.parametrize("of_replay", [SAME_RANGE, SAME_PARTITION])
def test_a_tick_does_not_wait_for_a_replay_of_the_same_months(
    dagster_instance: DagsterInstance, of_replay: Tags
) -> None:
    add_run(dagster_instance, of_replay, DagsterRunStatus.STARTED)
    tick = add_run(dagster_instance, {**SAME_RANGE, **TICK})

    assert dequeued(dagster_instance) == [tick.run_id]


def test_a_replay_of_a_year_as_one_run_per_month_leaves_places_for_a_tick_and_an_audit(
    dagster_instance: DagsterInstance,
) -> None:
    of_replay = [
        add_run(dagster_instance, {"dagster/backfill": "replay", "dagster/partition": f"2026-{month:02}"})
        for month in range(1, 13)
    ]
    others = [add_run(dagster_instance, {"recon/lane": lane}) for lane in ("tick", "audit")]

    assert dequeued(dagster_instance) == [run.run_id for run in (*of_replay[:2], *others)]


def test_no_more_than_four_runs_are_started_at_once(dagster_instance: DagsterInstance) -> None:
    runs = [add_run(dagster_instance, {}) for _ in range(5)]

    assert dequeued(dagster_instance) == [run.run_id for run in runs[:4]]


def test_the_settings_reach_the_instance(dagster_instance: DagsterInstance) -> None:
    assert isinstance(dagster_instance.run_coordinator, QueuedRunCoordinator)
    assert dagster_instance.run_monitoring_enabled
    assert dagster_instance.run_monitoring_max_resume_run_attempts == 0
    assert dagster_instance.run_retries_enabled
    assert dagster_instance.run_retries_max_retries == 2
    assert dagster_instance.run_retries_retry_on_asset_or_op_failure is False
    assert dagster_instance.telemetry_enabled is False
    assert dagster_instance.nux_enabled is False
    assert dagster_instance.get_settings("schedules") == {"use_threads": True, "num_workers": 2}


def test_ticks_are_not_kept_for_ever(dagster_instance: DagsterInstance) -> None:
    for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
        assert all(days > 0 for days in dagster_instance.get_tick_retention_settings(kind).values())


def test_the_workspace_names_the_location_as_the_project_does() -> None:
    root = DAGSTER_YAML.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["dagster"]
    workspace = yaml.safe_load((root / "workspace.yaml").read_text())

    (location,) = cast(Sequence[Mapping[str, Mapping[str, str]]], workspace["load_from"])
    assert location["python_module"] == {
        "module_name": project["module_name"],
        "location_name": project["code_location_name"],
    }
