"""The asset `lake_event_sums`: months are counted from the UI as from the command line."""

from pathlib import Path

import dagster as dg
import pytest

from recon_pipeline.definitions import defs
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.reconciliation.billing import Billing


def run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("count_lake")
    tags = {"dagster/asset_partition_range_start": "2025-05", "dagster/asset_partition_range_end": "2025-06"}
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_months_are_counted_and_what_they_add_up_to_is_shown(job_billing: Billing, lake: Path, tmp_path: Path) -> None:
    write(lake, [Event("req-1", 4, "a"), Event("req-1", 4, "a"), Event("req-2", None, "b")])
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        (made,) = run(instance).asset_materializations_for_node("lake_event_sums")[:1]
    shown = {name: value.value for name, value in made.metadata.items()}
    assert {name: shown[name] for name in ("keys", "events", "units", "invalid", "duplicates", "files")} == {
        "keys": 1, "events": 1, "units": "4", "invalid": 1, "duplicates": 1, "files": 1,
    }  # fmt: skip
    assert job_billing.value("select array_agg(partition order by partition) from recon.lake_count") == [
        "2025-05",
        "2025-06",
    ]


def test_a_lake_that_cannot_be_counted_fails_the_run_with_what_to_do(
    job_billing: Billing, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECON_LAKE_COMPLETE_UNTIL")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        (failed,) = run(instance).get_step_failure_events()
    assert failed.step_failure_data.user_failure_data is not None
    assert "RECON_LAKE_COMPLETE_UNTIL is not set" in (failed.step_failure_data.user_failure_data.description or "")


def test_without_a_lake_nothing_is_counted_and_all_assets_can_be_materialized_together(
    job_billing: Billing, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECON_LAKE")
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        done = run(instance)
    assert (done.success, done.asset_materializations_for_node("lake_event_sums")) == (True, [])
    assert job_billing.value("select count(*) from recon.lake_count") == 0
