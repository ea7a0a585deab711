"""A check that a blocked run leaves out is not shown as "Execution failed", and sends no alert."""

from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from recon_pipeline.definitions import defs
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import MAY
from recon_pipeline_tests.support.dagster import sensor_context
from recon_pipeline_tests.support.defined import alerts
from recon_pipeline_tests.support.receivers import webhook


@pytest.mark.parametrize(
    ("lost", "by", "why"),
    [
        (True, "event_log_is_visible", "Not one event of stripe:remote_commands is visible, but counters are not 0."),
        (False, "drift_is_within_budgets", "Blocked: 1 counters would be repaired; RECON_MAX_REPAIRS allows 0."),
    ],
    ids=["lost log", "budgets"],
)
def test_every_check_of_a_blocked_run_is_evaluated_or_says_why_it_was_not(
    make_billing: MakeBilling,
    dagster_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    lost: bool,
    by: str,
    why: str,
) -> None:
    billing = make_billing()
    if lost:
        billing.add_counter("a", 7)
    else:
        billing.add_event("a", 7, event_timestamp=MAY[0] + timedelta(days=3))
    monkeypatch.setenv("RECON_MAX_REPAIRS", "0")
    alerts(sensor_context(dagster_instance, ""))

    assert recon("reconcile", "--period", "2025-05").exit_code == 3

    keys = [key for key in defs.get_repository_def().asset_graph.asset_check_keys if "backfilled" not in str(key)]
    records = dagster_instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    assert {key.name for key in keys if records[key].status is AssetCheckExecutionRecordStatus.PLANNED} == set()
    last = records[dg.AssetCheckKey(dg.AssetKey("repaired_counters"), "counters_match_event_sums")].evaluation
    assert last is not None
    assert last.description == f"Not evaluated by this run: {why}"

    with webhook() as hook:
        monkeypatch.setenv("RECON_ALERT_URLS", hook.url)
        alerts(sensor_context(dagster_instance, ""))
    assert hook.titles == [f"[recon error] FAILING: {by}"]
