"""Tests of what a run decides run the assets without Dagster: both ways must end alike."""

from typing import Any

import pytest

from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import run_job
from recon_pipeline_tests.support.assets import run_assets

RUN = "outcome, error, drift_count, rows_repaired, mismatch_count, approved_reason, approved_by"


def drifted(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"full": True}


def unknown_customers(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"customers": ["nobody"]}


def beyond_a_budget(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "0")
    return {}


def a_lost_log(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    billing.query("truncate billing_usage_events")
    return {}


def no_counters(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    billing.query("drop table billing_usage_counters")
    return {}


def unnamed(value: Any, result: Any) -> Any:
    """What was said, without the name of the run, by which a person approves it."""
    return value.replace(result.run_id[:8], "RUN") if isinstance(value, str) else value


@pytest.mark.parametrize("prepare", [drifted, unknown_customers, beyond_a_budget, a_lost_log, no_counters])
def test_a_run_of_the_assets_alone_ends_as_the_job_does(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, prepare: Any
) -> None:
    job_billing.record("a", 5)
    job_billing.record("b", 6)
    config = prepare(job_billing, monkeypatch)

    ended: list[Any] = []
    for run in (run_job, run_assets):
        if prepare is not no_counters:
            job_billing.set_counter("a", 4)
        result = run(**config)
        checks = {
            name: (one.passed, one.severity, unnamed(one.description, result), one.metadata.get("count"))
            for name, one in result.checks.items()
        }
        records = job_billing.query(f"select {RUN} from recon.reconciliation_run where run_id = %s", result.run_id)
        rows = [tuple(unnamed(value, result) for value in row) for row in records]
        ended.append((result.success, rows, checks))

    of_job, of_assets = ended
    assert of_assets[:2] == of_job[:2]
    assert {name: said for name, said in of_assets[2].items() if of_job[2].get(name) != said} == {}
    assert list(of_assets[2]) == list(of_job[2])
