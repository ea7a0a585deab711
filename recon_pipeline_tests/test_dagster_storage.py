"""Dagster's records: found again by every process, on the database the environment names, and on no other."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from dagster import DagsterInstance, DagsterRunStatus, job, op
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value, serialize_value

from recon_pipeline import embedded_postgres
from recon_pipeline.automation.dagster_storage import ReconComputeLogManager, ReconPostgresStorage
from recon_pipeline.automation.dagster_url import dagster_url
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.embedded_postgres import ensure_running
from recon_pipeline_tests.support.dagster import instance_in
from recon_pipeline_tests.support.postgres import throwaway_folder

FIND_RUN = """
import sys
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._serdes import deserialize_value
instance = DagsterInstance.from_ref(deserialize_value(sys.argv[1], InstanceRef))
print(instance.get_run_by_id(sys.argv[2]).status.value, instance.root_directory)
"""
DAY_SECONDS = 86_400


@op
def say_hello() -> None:
    """A step that prints."""
    print("hello from the step")


@job
def greet() -> None:
    """A job that is not the product's."""
    say_hello()


def test_a_run_is_found_again_by_a_second_instance(dagster_instance: DagsterInstance) -> None:
    run_id = greet.execute_in_process(instance=dagster_instance).run_id

    with DagsterInstance.get() as second:
        run = second.get_run_by_id(run_id)
        events = second.all_logs(run_id)

    assert run is not None
    assert run.status is DagsterRunStatus.SUCCESS
    assert len(events) > 5


def test_another_process_finds_the_run_through_the_reference_alone_wherever_it_starts(
    dagster_instance: DagsterInstance, tmp_path: Path
) -> None:
    run_id = greet.execute_in_process(instance=dagster_instance).run_id
    reference = serialize_value(dagster_instance.get_ref())

    found = subprocess.run(
        [sys.executable, "-c", FIND_RUN, reference, run_id],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.split() == ["SUCCESS", dagster_instance.root_directory]


def test_the_reference_survives_its_round_trip_and_contains_no_url(dagster_instance: DagsterInstance) -> None:
    reference = dagster_instance.get_ref()

    again = deserialize_value(serialize_value(reference), InstanceRef)

    assert again == reference
    assert isinstance(again.storage, ReconPostgresStorage)
    assert os.environ["DAGSTER_PG_URL"] not in json.dumps(reference.to_dict(), default=str)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_pasted_spelling_of_the_url_works_for_reading_and_for_watching_a_run(
    dagster_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("DAGSTER_PG_URL", dagster_database_url.replace("postgresql", scheme, 1))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    with instance_in(tmp_path) as instance:
        assert greet.execute_in_process(instance=instance).success  # each event sends a NOTIFY


def test_the_billing_database_is_never_taken_for_dagsters_records(
    billing_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", billing_database_url)

    with pytest.raises(ConfigurationError, match="DAGSTER_PG_URL is not") as error, instance_in(tmp_path):
        pass

    assert "DAGSTER_PG_URL=postgresql://" in error.value.fix
    with psycopg.connect(billing_database_url) as connection:
        assert connection.execute("select to_regclass('runs')").fetchone() == (None,)


def test_a_url_that_cannot_be_used_is_named_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="DAGSTER_PG_URL cannot be used") as error:
        dagster_url({"DAGSTER_PG_URL": "mysql://user:hunter2@host/db"})

    assert "hunter2" not in str(error.value)


def test_without_any_url_the_records_are_on_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with throwaway_folder() as folder:
        monkeypatch.setattr(embedded_postgres, "default_data_folder", lambda: folder / "data")
        server = ensure_running(folder=folder / "data", keep_running=False)
        try:
            assert dagster_url({}) == dagster_url({"DATABASE_URL": "", "DAGSTER_PG_URL": ""}) == server.url("dagster")
            with psycopg.connect(server.url("dagster")) as connection:
                assert connection.execute("select 1").fetchone() == (1,)
        finally:
            server.stop()


def test_what_a_step_prints_is_kept_under_dagster_home(dagster_instance: DagsterInstance, tmp_path: Path) -> None:
    run_id = greet.execute_in_process(instance=dagster_instance).run_id

    logs = tmp_path / "dagster_home" / ".recon" / "dagster" / "logs"
    (printed,) = (logs / run_id / "compute_logs").glob("*.out")
    assert "hello from the step" in printed.read_text()
    assert sorted(path.name for path in (tmp_path / "dagster_home").iterdir()) == [".recon", "dagster.yaml"]


@pytest.fixture
def old_log(tmp_path: Path) -> Callable[[str, float], Path]:
    """Makes the log of a run that was written so many days ago."""

    def make(run_id: str, age_days: float) -> Path:
        folder = tmp_path / run_id / "compute_logs"
        folder.mkdir(parents=True)
        path = folder / "step.out"
        path.write_text("printed")
        then = time.time() - age_days * DAY_SECONDS
        for made in (path, folder, folder.parent):
            os.utime(made, (then, then))
        return path

    return make


def test_logs_older_than_they_are_kept_are_removed_with_their_folders(
    tmp_path: Path, old_log: Callable[[str, float], Path]
) -> None:
    old, young = old_log("old", 30.1), old_log("young", 29.9)

    with ReconComputeLogManager(str(tmp_path), keep_days=30).capture_logs(["new", "compute_logs", "step"]):
        pass

    assert not old.parents[1].exists()
    assert young.exists()
    assert (tmp_path / "new" / "compute_logs" / "step.out").exists()


def test_old_logs_are_looked_for_once_a_day(tmp_path: Path, old_log: Callable[[str, float], Path]) -> None:
    manager = ReconComputeLogManager(str(tmp_path), keep_days=30)
    with manager.capture_logs(["first", "compute_logs", "step"]):
        pass
    old = old_log("old", 31)

    with manager.capture_logs(["second", "compute_logs", "step"]):
        pass

    assert old.exists()


_PRINTING = """
import os, subprocess, sys
from recon_pipeline.automation.dagster_storage import ReconComputeLogManager

with ReconComputeLogManager(sys.argv[1], keep_days=30).capture_logs(["run", "compute_logs", "step"]):
    print("printed by the step", flush=True)
    print("an error of the step", file=sys.stderr, flush=True)
    subprocess.run(["echo", "printed by a child"], check=True)
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    print("children:", len(children), flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
print("printed after the step")
"""


@pytest.mark.parametrize("end", ["ends", "killed"])
def test_what_a_run_prints_is_kept_and_shown_without_a_process_for_it(tmp_path: Path, end: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _PRINTING, str(tmp_path), end], capture_output=True, text=True, check=False
    )
    kept = (tmp_path / "run" / "compute_logs" / "step.out").read_text()
    assert kept == "printed by the step\nprinted by a child\nchildren: 0\n"
    assert "an error of the step" in (tmp_path / "run" / "compute_logs" / "step.err").read_text()
    if end == "ends":
        assert ended.stdout == kept + "printed after the step\n"
        assert "an error of the step" in ended.stderr
        assert (tmp_path / "run" / "compute_logs" / "step.complete").exists()
