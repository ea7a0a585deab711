"""What runs without a person: which months a tick takes, when it waits, what is deleted, what is closed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import cast

import psycopg
import pytest
from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
    build_schedule_context,
)
from dagster._core.test_utils import create_run_for_test

from recon_pipeline.assets.months import RANGE_END_TAG, RANGE_START_TAG
from recon_pipeline.automation.housekeeping import KEEP_DRIFT_DAYS, KEEP_RUNS_DAYS
from recon_pipeline.automation.installation import LANE_TAG
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.settings import DEFAULT_START_PERIOD, RECENT_DAYS
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing, Period
from recon_pipeline_tests.support.dagster import run_in_location, sensor_context
from recon_pipeline_tests.support.defined import alerts, audit_every_night, reconcile_every_5_minutes

OPEN_A_RECORD = """
    insert into recon.reconciliation_run (run_id, started_at, mode, scope, first_partition, last_partition, outcome)
    values (%s, now() - make_interval(days => %s), 'full', '{}', '2025-05', '2025-05', %s)
"""
LONG_AGO = datetime(2025, 2, 1, tzinfo=UTC)


def tick(instance: DagsterInstance) -> list[tuple[str, str]]:
    """The ranges of months of the run requests of one evaluation."""
    requests = requests_of_a_tick(instance)
    assert all(request.tags[LANE_TAG] == "tick" for request in requests)
    return [(request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) for request in requests]


def requests_of_a_tick(instance: DagsterInstance) -> list[RunRequest]:
    context = build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
    evaluated = cast("Iterator[object]", reconcile_every_5_minutes(context))
    return [request for request in evaluated if isinstance(request, RunRequest)]


def tags_of_a_tick(instance: DagsterInstance) -> dict[str, str]:
    return dict(requests_of_a_tick(instance)[0].tags)


def period_of(days: int, *, ended_days_ago: float) -> Period:
    end = datetime.now(UTC) - timedelta(days=ended_days_ago)
    return end - timedelta(days=days), end


def month_of(instant: datetime) -> str:
    return BillingMonth.containing(instant).key


def add_idle(billing: Billing, customer: str, period: Period) -> None:
    """An event and its counter that nobody has touched for long."""
    billing.add_event(customer, 1, period=period, created_at=LONG_AGO)
    billing.add_counter(customer, 1, period=period, updated_at=LONG_AGO)


def verify_every_month(billing: Billing) -> None:
    """As if a run had found every counter of every month matching just now."""
    billing.query(
        """
        insert into recon.usage_month (gateway_name, usage_type, partition, verified_at)
        select 'stripe', 'remote_commands', to_char(month, 'YYYY-MM'), now()
        from generate_series(timestamp '2024-01-01', now() at time zone 'UTC', interval '1 month') as month
        """
    )


@pytest.fixture
def billing(make_billing: MakeBilling) -> Billing:
    """A database of the full mode: created_at and updated_at show what is new."""
    return make_billing(template="prepared_full")


@pytest.fixture
def this_month() -> str:
    return month_of(datetime.now(UTC))


def test_a_tick_takes_the_current_month_even_where_nothing_was_metered(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str
) -> None:
    assert tick(dagster_instance) == [(this_month, this_month)]


def test_a_tick_takes_months_with_open_and_recently_closed_periods_one_run_for_each_contiguous_range(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str
) -> None:
    verify_every_month(billing)
    now = datetime.now(UTC)
    recent = period_of(30, ended_days_ago=RECENT_DAYS - 1)
    forgotten = period_of(30, ended_days_ago=RECENT_DAYS + 1)
    annual = (now - timedelta(days=300), now + timedelta(days=65))
    add_idle(billing, "recent", recent)
    add_idle(billing, "annual", annual)
    expected = {month_of(recent[0]), month_of(annual[0]), this_month}
    ranges = tick(dagster_instance)
    assert covered_by(ranges) == expected
    assert all(BillingMonth.parse(last).next().key != first for (_, last), (first, _) in pairwise(ranges))

    add_idle(billing, "forgotten", forgotten)
    assert covered_by(tick(dagster_instance)) == expected | ({month_of(forgotten[0])} & expected)


def test_a_tick_of_several_ranges_is_one_that_dagster_accepts(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    add_idle(billing, "annual", (datetime(2025, 3, 10, tzinfo=UTC), datetime(2999, 3, 10, tzinfo=UTC)))
    ticked = reconcile_every_5_minutes.evaluate_tick(
        build_schedule_context(instance=dagster_instance, scheduled_execution_time=datetime.now(UTC))
    )
    keys = {request.run_key for request in ticked.run_requests or []}
    assert len(keys) == 2


def covered_by(ranges: list[tuple[str, str]]) -> set[str]:
    covered: set[str] = set()
    for first, last in ranges:
        month = BillingMonth.parse(first)
        while month <= BillingMonth.parse(last):
            covered.add(month.key)
            month = month.next()
    return covered


def test_an_annual_period_stays_in_its_start_month(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str
) -> None:
    verify_every_month(billing)
    now = datetime.now(UTC)
    start = (now - timedelta(days=300)).replace(day=10)
    add_idle(billing, "annual", (start, start + timedelta(days=365)))
    assert tick(dagster_instance) == [(month_of(start), month_of(start)), (this_month, this_month)]


@pytest.mark.parametrize("touched", ["event", "counter"])
def test_an_old_month_joins_when_it_gets_a_late_event_or_a_touched_counter(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str, touched: str
) -> None:
    old = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
    add_idle(billing, "old", old)
    verify_every_month(billing)
    assert tick(dagster_instance) == [(this_month, this_month)]

    if touched == "event":
        billing.add_event("old", 1, period=old)
    else:
        billing.query("update billing_usage_counters set usage_count = 9, updated_at = now()")
    assert tick(dagster_instance) == [("2025-03", "2025-03"), (this_month, this_month)]


def test_an_old_month_joins_until_a_run_over_every_customer_has_verified_it(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str
) -> None:
    add_idle(billing, "old", (datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)))
    with_the_old = [("2025-03", "2025-03"), (this_month, this_month)]
    assert tick(dagster_instance) == with_the_old

    assert recon("reconcile", "--period", "2025-03", "--customer", "old").exit_code == 0
    assert tick(dagster_instance) == with_the_old

    assert recon("reconcile", "--period", "2025-03").exit_code == 0
    assert tick(dagster_instance) == [(this_month, this_month)]


def test_a_log_that_can_be_read_in_increments_no_more_has_its_months_verified_all_the_same(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, this_month: str
) -> None:
    billing = make_billing()
    add_idle(billing, "old", (datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)))
    assert recon("reconcile", "--all").exit_code == 0
    billing.query("alter table billing_usage_events disable trigger recon_note_delete")
    billing.query("update recon.usage_month set verified_at = %s", LONG_AGO - timedelta(days=1))
    assert tick(dagster_instance) == [("2025-03", "2025-03"), (this_month, this_month)]

    assert recon("reconcile", "--period", "2025-03").exit_code == 0

    assert tick(dagster_instance) == [(this_month, this_month)]


def test_what_is_out_of_scope_or_before_the_start_brings_no_month_in(
    billing: Billing, dagster_instance: DagsterInstance, this_month: str
) -> None:
    open_since_2024 = datetime(2024, 12, 31, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
    billing.add_event("a", 1, period=open_since_2024)
    billing.add_event("b", 1, period=(LONG_AGO, open_since_2024[1]), usage_type="sms")
    assert tick(dagster_instance) == [(this_month, this_month)]


def test_an_incremental_tick_takes_months_that_were_never_verified_then_only_those_with_news(
    make_billing: MakeBilling, dagster_instance: DagsterInstance, this_month: str
) -> None:
    billing = make_billing()
    lately = f"{datetime.now(UTC) - timedelta(days=RECENT_DAYS):%Y-%m}", this_month
    old = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 4, 1, tzinfo=UTC)
    for customer in ("a", "b"):
        add_idle(billing, customer, old)
    assert tick(dagster_instance) == [(DEFAULT_START_PERIOD, this_month)]
    assert recon("reconcile", "--all").exit_code == 0
    assert tick(dagster_instance) == [lately]

    # Whatever created_at says.
    billing.add_event("a", 1, period=old, created_at=LONG_AGO)
    with_the_old = [("2025-03", "2025-03"), lately]
    assert tick(dagster_instance) == with_the_old
    assert recon("reconcile").exit_code == 0
    assert billing.counters(period=old) == {"a": 2, "b": 1}
    assert tick(dagster_instance) == []  # a run of these months was clean just now

    billing.query("delete from billing_usage_events where gateway_customer_id = 'b'")
    assert tick(dagster_instance) == [("2025-03", "2025-03")]


@pytest.mark.parametrize("status", [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
def test_a_tick_waits_while_a_run_of_an_earlier_one_has_not_ended(
    billing: Billing, dagster_instance: DagsterInstance, status: DagsterRunStatus
) -> None:
    run = create_run_for_test(dagster_instance, "reconcile", status=status, tags=tags_of_a_tick(dagster_instance))
    ticked = reconcile_every_5_minutes.evaluate_tick(build_schedule_context(instance=dagster_instance))
    assert not ticked.run_requests
    assert run.run_id in (ticked.skip_message or "")


def test_a_tick_does_not_wait_for_an_audit_nor_for_a_run_that_ended(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    tags = tags_of_a_tick(dagster_instance)
    create_run_for_test(
        dagster_instance, "reconcile", status=DagsterRunStatus.STARTED, tags={**tags, LANE_TAG: "audit"}
    )
    create_run_for_test(dagster_instance, "reconcile", status=DagsterRunStatus.FAILURE, tags=tags)
    assert tick(dagster_instance)


def test_the_audit_takes_every_month(this_month: str) -> None:
    (request,) = audit_every_night.evaluate_tick(build_schedule_context()).run_requests or []
    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == (DEFAULT_START_PERIOD, this_month)


def test_housekeeping_deletes_old_runs_and_old_drift_and_never_the_ledger(
    billing: Billing, dagster_instance: DagsterInstance, dagster_database_url: str
) -> None:
    from recon_pipeline.definitions import defs

    statuses = (DagsterRunStatus.SUCCESS, DagsterRunStatus.STARTED)
    tags = tags_of_a_tick(dagster_instance)
    old, still_running = (
        create_run_for_test(dagster_instance, "reconcile", status=status, tags=tags) for status in statuses
    )
    with psycopg.connect(dagster_database_url) as connection:
        connection.execute(
            "update runs set create_timestamp = create_timestamp - make_interval(days => %s)", [KEEP_RUNS_DAYS + 1]
        )
    young = create_run_for_test(dagster_instance, "reconcile", status=DagsterRunStatus.SUCCESS, tags=tags)
    for run_id, age_days in (("old", KEEP_DRIFT_DAYS + 1), ("young", KEEP_DRIFT_DAYS - 1)):
        billing.query(OPEN_A_RECORD, run_id, age_days, "clean")
        key = "gateway_name, usage_type, gateway_customer_id, period_start, period_end, kind"
        values = "'stripe', 'remote_commands', 'a', '2025-05-01Z', '2025-06-01Z', 'under'"
        billing.query(
            f"insert into recon.counter_drift (run_id, ordinal, {key}, settled_sum, visible_sum) "
            f"values ('{run_id}', 1, {values}, 1, 1)"
        )
        billing.query(
            f"insert into recon.counter_repair (run_id, {key}, usage_count_after) values ('{run_id}', {values}, 1)"
        )

    assert defs.resolve_job_def("housekeeping").execute_in_process(instance=dagster_instance).success

    left = {run.run_id for run in dagster_instance.get_runs(RunsFilter(job_name="reconcile"))}
    assert left == {still_running.run_id, young.run_id}
    assert old.run_id not in left
    assert billing.query("select run_id from recon.counter_drift") == [("young",)]
    assert billing.value("select count(*) from recon.counter_repair") == 2
    assert billing.value("select count(*) from recon.reconciliation_run") == 2


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (DagsterRunStatus.FAILURE, "failed"),
        (DagsterRunStatus.CANCELED, "failed"),
        (DagsterRunStatus.SUCCESS, "compared"),
    ],
)
def test_a_run_that_ended_without_closing_its_record_is_closed_by_the_sensor(
    billing: Billing, dagster_instance: DagsterInstance, status: DagsterRunStatus, outcome: str
) -> None:
    evaluate_alerts(dagster_instance)
    run = run_in_location(dagster_instance, "reconcile", status=status)
    billing.query(OPEN_A_RECORD, run.run_id, 0, "running")
    evaluate_alerts(dagster_instance)
    evaluate_alerts(dagster_instance)
    (record,) = billing.query("select outcome, finished_at, error from recon.reconciliation_run")
    assert record.outcome == outcome
    assert record.finished_at is not None
    assert (record.error is None) == (outcome == "compared")


def test_a_backfill_that_was_killed_does_not_stay_running_in_the_list_of_batches(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    evaluate_alerts(dagster_instance)
    killed, done = (
        run_in_location(dagster_instance, "backfill_usage_events", status=DagsterRunStatus.FAILURE) for _ in "ab"
    )
    for run, outcome in ((killed, "running"), (done, "done")):
        billing.query(
            "insert into recon.backfill_batch (batch_id, run_id, sources, mapping, dry_run, started_by, outcome) "
            "values (gen_random_uuid(), %s, '{a.csv}', '{}', false, 'me', %s)",
            run.run_id,
            outcome,
        )

    evaluate_alerts(dagster_instance)

    output = {one["run_id"]: one["outcome"] for one in recon("backfills", "--json").json["batches"]}
    assert output == {killed.run_id: "failed", done.run_id: "done"}


def test_the_sensor_leaves_a_closed_record_and_a_run_without_one_as_they_are(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    evaluate_alerts(dagster_instance)
    closed, _ = (run_in_location(dagster_instance, "reconcile", status=DagsterRunStatus.FAILURE) for _ in "ab")
    billing.query(OPEN_A_RECORD, closed.run_id, 0, "blocked")
    evaluate_alerts(dagster_instance)
    assert billing.query("select outcome, error from recon.reconciliation_run") == [("blocked", None)]


def evaluate_alerts(instance: DagsterInstance) -> None:
    alerts(sensor_context(instance, ""))


def test_status_shows_a_killed_run_once_its_record_is_closed(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    billing = make_billing()
    evaluate_alerts(dagster_instance)
    run = run_in_location(dagster_instance, "reconcile", status=DagsterRunStatus.FAILURE)
    billing.query(OPEN_A_RECORD, run.run_id, 0, "running")
    assert recon("status", "--json").json["runs"][0]["outcome"] == "running"
    evaluate_alerts(dagster_instance)
    output = recon("status", "--json")
    assert (output.exit_code, output.json["runs"][0]["outcome"]) == (1, "failed")
