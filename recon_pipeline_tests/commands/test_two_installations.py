"""Two installations in one Dagster, each with a database of its own, beside another team: none hides another."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run

from recon_pipeline.assets.months import range_tags
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.automation.housekeeping import KEEP_RUNS_DAYS
from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.automation.unfinished import START_SECONDS
from recon_pipeline.core.errors import ConfigurationError
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.definitions import build_definitions, defs
from recon_pipeline_tests.commands.conftest import MakeBilling
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.dagster import run_in_location, sensor_context

MAY = BillingMonth(2025, 5)
A_RUN = ("reconcile", "--period", "2025-05", "--json")
FAILURE = dg.DagsterRunStatus.FAILURE


@pytest.fixture
def databases(make_billing: MakeBilling, monkeypatch: pytest.MonkeyPatch) -> dict[str, Billing]:
    """One for each region; `DATABASE_URL` names neither."""
    made = {name: make_billing() for name in ("eu", "us")}
    for name, billing in made.items():
        monkeypatch.setenv(f"{name.upper()}_DATABASE_URL", billing.url)
        billing.add_event("a", 7)
        billing.add_counter("a", 3)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    return made


@pytest.fixture(scope="module")
def regions() -> dict[str, dg.Definitions]:
    return {
        name: build_definitions(name=name, database=ReconciledDatabase(url_variable=f"{name.upper()}_DATABASE_URL"))
        for name in ("eu", "us")
    }


def names_in(definitions: dg.Definitions) -> set[str]:
    """Everything by which Dagster distinguishes what a code location defines."""
    repository = definitions.get_repository_def()
    found = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    found |= {f"{key.asset_key.to_user_string()}:{key.name}" for key in repository.asset_graph.asset_check_keys}
    found |= {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}
    found |= {one.name for one in (*repository.schedule_defs, *repository.sensor_defs)}
    found |= {group for key in repository.asset_graph.get_all_asset_keys() if (group := group_of(repository, key))}
    found |= {node.name for job in repository.get_all_jobs() for node in job.all_node_defs}
    return found | set(repository.get_top_level_resources())


def group_of(repository: dg.RepositoryDefinition, key: dg.AssetKey) -> str | None:
    return repository.asset_graph.get(key).group_name


def tick(definitions: dg.Definitions, name: str, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    """The first run that a tick requests, or why it requests none."""
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
    ticked = definitions.resolve_schedule_def(f"{name}_reconcile_every_5_minutes").evaluate_tick(context)
    return ticked.run_requests[0] if ticked.run_requests else ticked.skip_message or ""


def test_nothing_of_two_installations_has_one_name_and_without_a_name_all_is_called_as_before(
    regions: dict[str, dg.Definitions],
) -> None:
    eu, us = (names_in(definitions) for definitions in regions.values())
    assert eu.isdisjoint(us)
    assert all("eu" in name for name in eu)
    plain = names_in(defs)
    assert {"usage_events", "reconcile", "alerts", "billing_usage", "reconciler", "take_repairs_back"} <= plain
    assert "repaired_counters:counters_match_event_sums" in plain
    assert {f"eu_{name}" for name in plain if "/" not in name} >= {"eu_reconcile", "eu_audit_every_night"}


def test_two_installations_and_another_teams_executor_and_job_of_the_same_name_share_a_code_location(
    regions: dict[str, dg.Definitions],
) -> None:
    @dg.job
    def reconcile() -> None: ...

    @dg.asset
    def usage_events() -> None: ...

    theirs = dg.Definitions(
        assets=[usage_events],
        jobs=[reconcile],
        executor=dg.multiprocess_executor,
        loggers={"console": dg.colored_console_logger},
        resources={"reconciler": dg.ResourceDefinition.hardcoded_resource("theirs"), "io_manager": dg.mem_io_manager},
    )
    merged = dg.Definitions.merge(theirs, *regions.values())
    assert names_in(merged) > names_in(regions["eu"]) | names_in(regions["us"])
    assert merged.resolve_job_def("reconcile").all_node_defs == []
    assert merged.resolve_job_def("eu_reconcile").executor_def is dg.in_process_executor


def test_a_run_of_one_repairs_its_own_database_and_leaves_the_other(
    databases: dict[str, Billing], regions: dict[str, dg.Definitions], dagster_instance: dg.DagsterInstance
) -> None:
    job = regions["eu"].resolve_job_def("eu_reconcile")
    assert job.execute_in_process(instance=dagster_instance, tags=range_tags(MAY, MAY)).success
    assert (databases["eu"].counter("a"), databases["us"].counter("a")) == (7, 3)


def test_what_a_blocked_run_advises_is_for_its_own_installation_and_approves_when_it_is_pasted(
    databases: dict[str, Billing],
    regions: dict[str, dg.Definitions],
    dagster_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "0")
    job = regions["eu"].resolve_job_def("eu_reconcile")
    job.execute_in_process(instance=dagster_instance, tags=range_tags(MAY, MAY), raise_on_error=False)
    said = databases["eu"].value("select error from recon.reconciliation_run")
    assert "Or in the UI: job eu_reconcile, " in said
    assert databases["eu"].counter("a") != 7

    (line,) = [line for line in said.splitlines() if line.startswith("resources: ")]
    assert job.execute_in_process(
        instance=dagster_instance, tags=range_tags(MAY, MAY), run_config=yaml.safe_load(line)
    ).success
    assert databases["eu"].counter("a") == 7


def test_a_tick_of_one_does_not_wait_for_the_tick_of_the_other_nor_have_its_lane(
    databases: dict[str, Billing], regions: dict[str, dg.Definitions], dagster_instance: dg.DagsterInstance
) -> None:
    requests = {name: tick(definitions, name, dagster_instance) for name, definitions in regions.items()}
    eu, us = (request for request in requests.values() if isinstance(request, dg.RunRequest))
    assert (eu.tags[LANE_TAG], us.tags[LANE_TAG]) == ("eu/tick", "us/tick")

    running = run_in_location(dagster_instance, "us_reconcile", status=dg.DagsterRunStatus.STARTED, tags=dict(us.tags))
    assert isinstance(tick(regions["eu"], "eu", dagster_instance), dg.RunRequest)
    assert running.run_id in str(tick(regions["us"], "us", dagster_instance))


def test_alerts_and_housekeeping_of_one_leave_the_runs_of_the_other_alone_in_one_code_location(
    databases: dict[str, Billing],
    regions: dict[str, dg.Definitions],
    dagster_instance: dg.DagsterInstance,
    dagster_database_url: str,
) -> None:
    alerts = {name: definitions.resolve_sensor_def(f"{name}_alerts") for name, definitions in regions.items()}
    for sensor in alerts.values():
        sensor(sensor_context(dagster_instance, ""))
    ended = {
        name: {
            run_in_location(dagster_instance, f"{name}_reconcile", status=FAILURE).run_id,
            run_in_location(dagster_instance, "__ASSET_JOB", status=FAILURE, assets=[f"{name}/usage_events"]).run_id,
        }
        for name in regions
    }
    for name, sensor in alerts.items():
        sensor(sensor_context(dagster_instance, ""))
        assert {row.run_id for row in databases[name].query("select run_id from recon.alert_run")} == ended[name]

    with psycopg.connect(dagster_database_url) as connection:
        connection.execute(
            "update runs set create_timestamp = create_timestamp - make_interval(days => %s)", [KEEP_RUNS_DAYS + 1]
        )
    run = run_in_location(dagster_instance, "eu_housekeeping")
    assert execute_run(InMemoryJob(regions["eu"].resolve_job_def("eu_housekeeping")), run, dagster_instance).success
    assert {one.run_id for one in dagster_instance.get_runs()} == ended["us"] | {run.run_id}


def test_a_command_runs_the_job_of_its_installation(
    databases: dict[str, Billing], dagster_instance: dg.DagsterInstance
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "from recon_pipeline.faces.cli import main; main()", *A_RUN],
        env={**os.environ, "RECON_NAME": "eu", "DATABASE_URL": databases["eu"].url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    run = dagster_instance.get_run_by_id(json.loads(ended.stdout)["run_id"])
    assert run is not None
    assert run.job_name == "eu_reconcile"
    assert databases["eu"].counter("a") == 7


def test_a_name_that_dagster_could_not_use_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        build_definitions(name="EU-1")
    assert refused.value.what == (
        "RECON_NAME is 'EU-1', which is not a letter followed by letters, digits and single _, 30 in all."
    )
    assert refused.value.fix == "Set it like RECON_NAME=eu, or unset it if no other installation is in this Dagster."


def test_a_variable_that_is_to_hold_the_url_and_is_not_set_is_named() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ReconciledDatabase(url_variable="EU_DATABASE_URL").settings()
    assert refused.value.what == "EU_DATABASE_URL is not set; it is to hold the URL of the billing database."
    assert refused.value.fix == "Set it like EU_DATABASE_URL=postgresql://user:password@host:5432/database."


@pytest.fixture
def plain_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """As another team may have configured it: neither a queue nor run monitoring."""
    at_once = {"run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=at_once) as instance:
        yield instance


@pytest.mark.parametrize(
    "status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.QUEUED]
)
def test_a_run_that_never_started_delays_the_next_tick_for_two_minutes_at_most(
    databases: dict[str, Billing],
    regions: dict[str, dg.Definitions],
    plain_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    status: dg.DagsterRunStatus,
) -> None:
    assert START_SECONDS == 120
    first = tick(regions["eu"], "eu", plain_instance)
    assert isinstance(first, dg.RunRequest)
    lost = run_in_location(plain_instance, "eu_reconcile", status=status, tags=dict(first.tags))
    assert lost.run_id in str(tick(regions["eu"], "eu", plain_instance))

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=START_SECONDS + 1)

    monkeypatch.setattr("recon_pipeline.automation.unfinished.datetime", Later)
    assert isinstance(tick(regions["eu"], "eu", plain_instance), dg.RunRequest)
    ended = plain_instance.get_run_by_id(lost.run_id)
    assert ended is not None
    assert ended.status is FAILURE


def test_a_run_that_waits_its_turn_in_a_queue_keeps_its_place(
    databases: dict[str, Billing],
    regions: dict[str, dg.Definitions],
    dagster_instance: dg.DagsterInstance,
    dagster_database_url: str,
) -> None:
    first = tick(regions["eu"], "eu", dagster_instance)
    assert isinstance(first, dg.RunRequest)
    waiting = run_in_location(
        dagster_instance, "eu_reconcile", status=dg.DagsterRunStatus.QUEUED, tags=dict(first.tags)
    )
    with psycopg.connect(dagster_database_url) as connection:
        connection.execute("update runs set update_timestamp = update_timestamp - interval '1 hour'")
    assert waiting.run_id in str(tick(regions["eu"], "eu", dagster_instance))
