"""A tick of which nothing has changed since a clean run starts no run: the result of that run is still true.

Whatever may have changed is looked at by a run, as before.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster import DagsterInstance, build_schedule_context

from recon_pipeline.assets.months import RANGE_END_TAG, RANGE_START_TAG
from recon_pipeline.store.records.unchanged import RUN_AT_LEAST_EVERY_MINUTES
from recon_pipeline.store.sums import horizons
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing, Period
from recon_pipeline_tests.reconciliation.seals import seal
from recon_pipeline_tests.support.assets import run_assets
from recon_pipeline_tests.support.defined import reconcile_every_5_minutes

MATCH = dg.AssetCheckKey(dg.AssetKey("repaired_counters"), "counters_match_event_sums")


def this_month() -> Period:
    start = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)


def tick(instance: DagsterInstance) -> Any:
    """One evaluation of the schedule."""
    return reconcile_every_5_minutes.evaluate_tick(
        build_schedule_context(instance=instance, scheduled_execution_time=datetime.now(UTC))
    )


def run_what_a_tick_asks_for(instance: DagsterInstance) -> int:
    """Returns how many runs that were."""
    requests = tick(instance).run_requests or []
    for request in requests:
        run = run_assets(first=request.tags[RANGE_START_TAG], last=request.tags[RANGE_END_TAG])
        assert run.record.outcome == "clean"
    return len(requests)


@pytest.fixture
def quiet(billing: Billing, dagster_instance: DagsterInstance) -> Billing:
    """Two customers whose counters are right, and every month verified."""
    for customer in ("ada", "bob"):
        billing.record(customer, 5, period=this_month())
    for _ in range(2):
        assert run_what_a_tick_asks_for(dagster_instance)
    return billing


def evaluations(instance: DagsterInstance) -> list[dg.AssetCheckEvaluation]:
    records = instance.event_log_storage.get_asset_check_execution_history(MATCH, limit=100)
    found = [record.event.dagster_event for record in records if record.event is not None]
    return [event.asset_check_evaluation_data for event in found if event is not None]


def test_a_quiet_tick_starts_no_run_and_says_which_run_it_confirms(
    quiet: Billing, dagster_instance: DagsterInstance
) -> None:
    (run_id,) = quiet.query("select run_id from recon.reconciliation_run order by started_at desc limit 1")[0]

    ticked = tick(dagster_instance)

    assert not ticked.run_requests
    assert (
        f"has changed since run {run_id[:8]}, which compared it at {datetime.now(UTC):%Y-%m-%d}" in ticked.skip_message
    )
    (evaluation,) = evaluations(dagster_instance)
    assert evaluation.passed
    assert evaluation.metadata["confirmed_run"].value == run_id


def test_a_quiet_tick_leaves_few_rows_in_dagsters_tables(quiet: Billing, dagster_instance: DagsterInstance) -> None:
    def rows() -> list[int]:
        with psycopg.connect(os.environ["DAGSTER_PG_URL"]) as connection:
            tables = ("event_logs", "asset_check_executions", "runs")
            counts = [connection.execute(f"select count(*) from {table}".encode()).fetchone() for table in tables]
        return [count[0] for count in counts if count]

    before = rows()
    assert not tick(dagster_instance).run_requests
    assert [now - then for now, then in zip(rows(), before, strict=True)] == [1, 1, 0]


def test_a_quiet_tick_counts_as_a_success_in_status_and_for_the_dead_mans_switch(
    quiet: Billing, dagster_instance: DagsterInstance
) -> None:
    (confirmed,) = quiet.query("select run_id from recon.reconciliation_run order by started_at desc limit 1")[0]
    quiet.query("update recon.reconciliation_run set finished_at = finished_at - interval '50 minutes'")
    quiet.query("update recon.reconciliation_run set started_at = started_at - interval '50 minutes'")

    tick(dagster_instance)

    output = recon("status", "--json").json
    assert output["success"]
    assert output["runs"][0]["outcome"] == "clean"
    assert output["runs"][0]["confirms_run_id"] == confirmed
    assert output["runs"][0]["drift_count"] == 0
    assert datetime.fromisoformat(output["last_clean_at"]) > datetime.now(UTC) - timedelta(minutes=5)
    assert f"= {confirmed[:8]}" in recon("status").said


def test_quiet_ticks_are_confirmed_one_after_the_other_until_a_run_is_due(
    quiet: Billing, dagster_instance: DagsterInstance
) -> None:
    for _ in range(3):
        assert not tick(dagster_instance).run_requests
    quiet.query(
        "update recon.reconciliation_run set started_at = started_at - make_interval(mins => %s) "
        "where confirms_run_id is null",
        RUN_AT_LEAST_EVERY_MINUTES,
    )
    assert run_what_a_tick_asks_for(dagster_instance) == 1
    assert not tick(dagster_instance).run_requests


CHANGES = {
    "an event without its increment": lambda billing: billing.add_event("ada", 1, period=this_month()),
    "an event with its increment": lambda billing: billing.record("ada", 1, period=this_month()),
    "a new customer": lambda billing: billing.record("eve", 1, period=this_month()),
    "an event deleted": lambda billing: billing.query("delete from billing_usage_events where quantity = 5"),
    "an event updated": lambda billing: billing.query("update billing_usage_events set quantity = 6"),
    "the log truncated": lambda billing: billing.query("truncate billing_usage_events"),
    "the log filled anew": lambda billing: billing.query(
        "create table kept as table billing_usage_events; truncate billing_usage_events; "
        "insert into billing_usage_events select * from kept"
    ),
    "a counter changed": lambda billing: billing.set_counter("ada", 6),
    "a counter deleted": lambda billing: billing.query(
        "delete from billing_usage_counters where gateway_customer_id = 'ada'"
    ),
    "a counter added": lambda billing: billing.add_counter("eve", 1, period=this_month()),
    "every counter deleted": lambda billing: billing.query("truncate billing_usage_counters"),
    "triggers switched off": lambda billing: billing.query("alter table billing_usage_events disable trigger user"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changed_is_looked_at_by_a_run(
    quiet: Billing, dagster_instance: DagsterInstance, change: Callable[[Billing], object]
) -> None:
    change(quiet)
    assert tick(dagster_instance).run_requests
    assert not evaluations(dagster_instance)


def test_a_quiet_tick_confirms_a_sealed_month_and_sees_a_counter_of_it_that_somebody_edited(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    start, end = this_month()
    last_month = ((start - timedelta(days=1)).replace(day=1), start)
    for period in (last_month, (start, end)):
        billing.record("ada", 5, period=period)
    for _ in range(2):
        assert run_what_a_tick_asks_for(dagster_instance)
    seal(billing, f"{last_month[0]:%Y-%m}")
    assert run_what_a_tick_asks_for(dagster_instance), "every key of it is compared once with the seal"
    assert not tick(dagster_instance).run_requests

    billing.query("update billing_usage_counters set usage_count = 6 where period_start = %s", last_month[0])

    assert run_what_a_tick_asks_for(dagster_instance)
    assert billing.counter("ada", period=last_month) == 5


@pytest.mark.parametrize("outcome", ["not_clean", "blocked", "failed", "paused", "put_off", "compared", "running"])
def test_only_a_clean_run_is_confirmed(quiet: Billing, dagster_instance: DagsterInstance, outcome: str) -> None:
    quiet.query(
        "update recon.reconciliation_run set outcome = %s "
        "where started_at = (select max(started_at) from recon.reconciliation_run)",
        outcome,
    )
    assert tick(dagster_instance).run_requests


def test_an_open_key_is_looked_at_by_every_tick(quiet: Billing, dagster_instance: DagsterInstance) -> None:
    quiet.query(
        "insert into recon.open_key (gateway_name, usage_type, gateway_customer_id, period_start, period_end, reason) "
        "values ('stripe', 'remote_commands', 'ada', %s, %s, 'held')",
        *this_month(),
    )
    assert tick(dagster_instance).run_requests


def test_a_run_over_other_usages_is_not_confirmed(
    quiet: Billing, dagster_instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_SCOPE", "stripe:remote_commands,stripe:sms_messages")
    assert tick(dagster_instance).run_requests


@pytest.mark.parametrize("is_old", [False, True])
def test_a_transaction_that_is_open_for_long_is_reported_by_a_run(
    quiet: Billing, dagster_instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, *, is_old: bool
) -> None:
    monkeypatch.setattr(horizons, "HELD_BACK_SECONDS", -1 if is_old else 600)
    with quiet.session() as session:
        session.query("create temporary table mine (id int)")
        quiet.query("select pg_current_xact_id()")  # another one has ended since
        assert bool(tick(dagster_instance).run_requests) == is_old


@pytest.mark.parametrize("commits", [True, False])
def test_an_increment_in_flight_is_seen_by_the_tick_after_its_commit(
    quiet: Billing, dagster_instance: DagsterInstance, *, commits: bool
) -> None:
    with quiet.session() as session:
        session.record("ada", 2, period=this_month())
        assert not tick(dagster_instance).run_requests
        (session.connection.commit if commits else session.connection.rollback)()
    assert bool(tick(dagster_instance).run_requests) == commits
    if commits:
        run_what_a_tick_asks_for(dagster_instance)
        assert not tick(dagster_instance).run_requests


def test_a_log_that_cannot_be_read_in_increments_is_read_by_every_tick(
    make_billing: MakeBilling, dagster_instance: DagsterInstance
) -> None:
    billing = make_billing(template="prepared_full")
    billing.record("ada", 5, period=this_month())
    for _ in range(3):
        assert run_what_a_tick_asks_for(dagster_instance)


def test_a_month_that_changed_is_run_and_another_that_did_not_is_confirmed(
    billing: Billing, dagster_instance: DagsterInstance
) -> None:
    annual = datetime(2025, 3, 10, tzinfo=UTC), datetime(2999, 3, 10, tzinfo=UTC)
    for period in (annual, this_month()):
        billing.record("ada", 5, period=period)
    for _ in range(2):
        run_what_a_tick_asks_for(dagster_instance)
    billing.record("ada", 1, period=annual)

    requests = tick(dagster_instance).run_requests

    assert [request.tags[RANGE_START_TAG] for request in requests] == ["2025-03"]
    (evaluation,) = evaluations(dagster_instance)
    assert str(evaluation.metadata["months"].value).endswith(f"{datetime.now(UTC):%Y-%m}")
