"""A Dagster that other teams use too: what is theirs is neither deleted, nor waited for, nor reported as ours.

They have jobs of the same names as ours in another code location, a second installation of this product among them, and
jobs of their own beside ours in the same one.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from dagster import DagsterInstance, DagsterRunStatus, build_schedule_context
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.test_utils import create_run_for_test

from recon_pipeline.automation import housekeeping as housekeeping_job
from recon_pipeline.automation import own_runs
from recon_pipeline.automation.housekeeping import KEEP_RUNS_DAYS
from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.automation.own_runs import own_tag
from recon_pipeline.definitions import defs
from recon_pipeline.faces.serve.runner import LANE, Runner
from recon_pipeline.settings import read_settings
from recon_pipeline.store.postgres.database import BillingDatabase, open_database
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.support.dagster import OTHER_LOCATION, OUR_LOCATION, run_in_location, sensor_context
from recon_pipeline_tests.support.defined import alerts, reconcile_every_5_minutes
from recon_pipeline_tests.support.receivers import Webhook, webhook

OUR_JOBS = ("reconcile", "backfill_usage_events", "undo_repairs", "housekeeping")
MATERIALIZED = "__ASSET_JOB"
"""The name of the job of whatever a person materializes in the UI."""

A_RUN = ("reconcile", "--period", "2025-05", "--json")
FAILURE = DagsterRunStatus.FAILURE


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with webhook() as running:
        monkeypatch.setenv("RECON_ALERT_URLS", running.url)
        yield running


def runs_of_others(instance: DagsterInstance, status: DagsterRunStatus = FAILURE) -> set[str]:
    theirs = [
        *(run_in_location(instance, job, location=OTHER_LOCATION, status=status) for job in (*OUR_JOBS, "load_orders")),
        run_in_location(instance, MATERIALIZED, location=OTHER_LOCATION, status=status, assets=["usage_events"]),
        run_in_location(instance, "load_orders", status=status),
        run_in_location(instance, MATERIALIZED, status=status, assets=["orders"]),
        run_in_location(instance, MATERIALIZED, status=status, assets=["orders", "usage_events"]),
        instance.create_run_for_job(defs.resolve_job_def("reconcile"), status=status),
    ]
    return {run.run_id for run in theirs}


def runs_of_ours(instance: DagsterInstance, status: DagsterRunStatus = FAILURE) -> set[str]:
    ours = [
        *(run_in_location(instance, job, status=status) for job in OUR_JOBS),
        run_in_location(instance, MATERIALIZED, status=status, assets=["usage_events", "usage_aggregates"]),
    ]
    return {run.run_id for run in ours}


def make_old(url: str) -> None:
    """As if every run there is had been created, and had ended, before the oldest that is kept."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "update runs set create_timestamp = create_timestamp - make_interval(days => %(days)s), "
            "update_timestamp = update_timestamp - make_interval(days => %(days)s)",
            {"days": KEEP_RUNS_DAYS + 1},
        )


def housekeeping(instance: DagsterInstance) -> str:
    """One run of the job as the daemon launches it in our code location; its id."""
    run = run_in_location(instance, "housekeeping")
    assert execute_run(InMemoryJob(defs.resolve_job_def("housekeeping")), run, instance).success
    return run.run_id


def run_of_the_command(instance: DagsterInstance, billing: Billing) -> str:
    """The id of a run that `recon` made in its own process: in no code location."""
    before = left(instance)
    assert recon(*A_RUN, DATABASE_URL=billing.url).exit_code == 0
    (run_id,) = left(instance) - before
    return run_id


def run_of_a_server(instance: DagsterInstance, billing: Billing) -> str:
    """The id of a run that `recon serve` on that database has begun."""
    with BillingDatabase(billing.url).transaction() as connection:
        tags = {**own_tag(connection), LANE_TAG: LANE}
    return create_run_for_test(instance, "reconcile", status=DagsterRunStatus.STARTED, tags=tags).run_id


def status_of(instance: DagsterInstance, run_id: str) -> DagsterRunStatus | None:
    run = instance.get_run_by_id(run_id)
    return run and run.status


def left(instance: DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def test_housekeeping_deletes_old_runs_of_ours_and_no_others(
    billing: Billing, dagster_instance: DagsterInstance, dagster_database_url: str
) -> None:
    theirs, ours = runs_of_others(dagster_instance), runs_of_ours(dagster_instance)
    make_old(dagster_database_url)
    young = runs_of_ours(dagster_instance)

    itself = housekeeping(dagster_instance)

    assert left(dagster_instance) == theirs | young | {itself}
    assert ours.isdisjoint(left(dagster_instance))


def test_alerts_report_runs_of_ours_and_no_others(
    billing: Billing, dagster_instance: DagsterInstance, hook: Webhook
) -> None:
    alerts(sensor_context(dagster_instance, ""))
    theirs = runs_of_others(dagster_instance)
    alerts(sensor_context(dagster_instance, ""))
    assert hook.received == []

    ours = runs_of_ours(dagster_instance)
    alerts(sensor_context(dagster_instance, ""))
    noticed = {row.run_id for row in billing.query("select run_id from recon.alert_run")}
    assert noticed == ours
    assert theirs.isdisjoint(noticed)
    assert "[recon error] FAILING: reconcile_runs" in str(hook.titles)


def test_runs_of_the_command_are_ours_if_they_are_about_our_database(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, dagster_database_url: str, hook: Webhook
) -> None:
    theirs_elsewhere = make_billing()
    ours_here = make_billing()
    alerts(sensor_context(dagster_instance, ""))
    ours = run_of_the_command(dagster_instance, ours_here)
    theirs = run_of_the_command(dagster_instance, theirs_elsewhere)
    alerts(sensor_context(dagster_instance, ""))
    assert ours_here.query("select run_id from recon.alert_run") == [(ours,)]

    make_old(dagster_database_url)
    itself = housekeeping(dagster_instance)
    assert left(dagster_instance) == {theirs, itself}


def test_more_runs_than_are_read_at_once_are_all_noticed_and_deleted_also_where_many_ended_in_one_moment(
    billing: Billing, dagster_instance: DagsterInstance, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_runs, "RECORDS_AT_ONCE", 2)
    alerts(sensor_context(dagster_instance, ""))
    theirs, ours = set[str](), set[str]()
    for _ in range(3):
        theirs |= runs_of_others(dagster_instance)
        ours |= runs_of_ours(dagster_instance)
    alerts(sensor_context(dagster_instance, ""))
    assert {row.run_id for row in billing.query("select run_id from recon.alert_run")} == ours

    with psycopg.connect(dagster_database_url) as connection:
        connection.execute("update runs set update_timestamp = now() at time zone 'UTC' where id > 10")
    make_old(dagster_database_url)
    itself = housekeeping(dagster_instance)
    assert left(dagster_instance) == theirs | {itself}


def test_one_night_deletes_no_more_than_the_bound_and_the_next_goes_on(
    billing: Billing, dagster_instance: DagsterInstance, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping_job, "DELETED_RUNS_AT_MOST", 3)
    theirs, ours = runs_of_others(dagster_instance), runs_of_ours(dagster_instance)
    make_old(dagster_database_url)
    nights = set[str]()
    for expected in (len(ours) - 3, 0, 0):
        nights.add(housekeeping(dagster_instance))
        assert len(ours & left(dagster_instance)) == expected
    assert left(dagster_instance) == theirs | nights


def test_a_run_of_another_installations_server_is_not_reported_as_dead(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    theirs, ours = (run_of_a_server(dagster_instance, make_billing()) for _ in range(2))
    settings = read_settings()
    Runner(settings, open_database(settings)).start().ended.result(120)
    assert status_of(dagster_instance, theirs) is DagsterRunStatus.STARTED
    assert status_of(dagster_instance, ours) is FAILURE


def test_a_tick_does_not_wait_for_the_tick_of_another_installation(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    run_in_location(
        dagster_instance, "reconcile", location=OTHER_LOCATION, status=DagsterRunStatus.STARTED, tags={LANE_TAG: "tick"}
    )
    now = datetime.now(UTC)
    ticked = reconcile_every_5_minutes.evaluate_tick(
        build_schedule_context(instance=dagster_instance, scheduled_execution_time=now)
    )
    assert ticked.run_requests


def test_the_sensor_closes_records_of_runs_of_our_code_location_alone(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    alerts(sensor_context(dagster_instance, ""))
    ours, theirs = (
        run_in_location(dagster_instance, "reconcile", location=location, status=DagsterRunStatus.STARTED)
        for location in (OUR_LOCATION, OTHER_LOCATION)
    )
    for run in (theirs, ours):
        billing.query(
            "insert into recon.reconciliation_run "
            "(run_id, started_at, mode, scope, first_partition, last_partition, outcome) "
            "values (%s, now(), 'full', '{}', '2025-05', '2025-05', 'running')",
            run.run_id,
        )
        dagster_instance.report_run_failed(run)

    alerts(sensor_context(dagster_instance, ""))

    outcomes = dict(billing.query("select run_id, outcome from recon.reconciliation_run"))
    assert outcomes == {theirs.run_id: "running", ours.run_id: "failed"}
