"""The asset `sealed_counters`, and the schedule that seals months by themselves."""

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from recon_pipeline.assets.names import Names
from recon_pipeline.automation.installation import Installation
from recon_pipeline.automation.schedules import _due  # pyright: ignore[reportPrivateUsage]
from recon_pipeline.definitions import defs
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing, customers

CUSTOMERS = customers(3)
BY_ITSELF = {"recon/seals_by_itself": "true"}


@pytest.fixture
def used(billing: Billing) -> Billing:
    """Three customers used 10 in May."""
    for customer in CUSTOMERS:
        billing.record(customer, 10)
    return billing


def run(instance: dg.DagsterInstance, **tags: str) -> dg.ExecuteInProcessResult:
    job = defs.resolve_job_def("seal_months")
    return job.execute_in_process(instance=instance, partition_key="2025-05", tags=tags, raise_on_error=False)


def test_the_asset_seals_a_month_once_and_a_refusal_fails_the_run_of_a_person(used: Billing) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        used.set_counter(CUSTOMERS[0], 9)
        assert not run(instance, user="ada").success
        used.set_counter(CUSTOMERS[0], 10)
        sealed = run(instance, user="ada")
        assert sealed.success
        (event,) = sealed.get_asset_materialization_events()
        assert event.partition == "2025-05"
        assert not run(instance, user="ada").success
    assert used.query("select kind, acted_by, run_id from recon.month_seal") == [("sealed", "ada", sealed.run_id)]


def test_a_run_of_the_schedule_does_not_fail_because_a_month_cannot_be_sealed_yet_and_says_why(used: Billing) -> None:
    used.set_counter(CUSTOMERS[0], 9)
    with dg.DagsterInstance.ephemeral() as instance:
        refused = run(instance, **BY_ITSELF)
        assert refused.success
        assert refused.get_asset_materialization_events() == []
        (observed,) = refused.get_asset_observation_events()
        assert "1 counters are not what the log adds up to" in str(
            observed.asset_observation_data.asset_observation.description
        )
        used.set_counter(CUSTOMERS[0], 10)
        assert run(instance, **BY_ITSELF).success
    assert used.query("select kind, acted_by from recon.month_seal") == [("sealed", "RECON_SEAL_AFTER_DAYS")]


def asked_of_schedule() -> list[Any]:
    context: Any = dg.build_schedule_context(scheduled_execution_time=datetime.now(UTC))
    return list(_due(context, Installation(Names(""))))


def test_months_are_due_so_many_days_after_they_ended_and_no_longer_once_they_are_sealed(
    used: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    (skipped,) = asked_of_schedule()
    assert skipped.skip_message == "RECON_SEAL_AFTER_DAYS is not set: a person seals months (recon seal)."
    monkeypatch.setenv("RECON_START_PERIOD", "2025-04")
    ended = (datetime.now(UTC) - datetime(2025, 6, 1, tzinfo=UTC)).days
    monkeypatch.setenv("RECON_SEAL_AFTER_DAYS", str(ended + 1))
    assert [one.tags["dagster/partition"] for one in asked_of_schedule()] == ["2025-04"]
    monkeypatch.setenv("RECON_SEAL_AFTER_DAYS", str(ended))
    requests = asked_of_schedule()
    assert [one.tags["dagster/partition"] for one in requests] == ["2025-04", "2025-05"]
    assert {one.tags["recon/seals_by_itself"] for one in requests} == {"true"}
    for month in ("2025-04", "2025-05"):
        assert recon("seal", "--period", month).exit_code == 0
    assert [one.skip_message for one in asked_of_schedule()] == ["Every month that is due is sealed."]


@pytest.mark.parametrize("value", ["-1", "3651", "soon", "1.5"])
def test_a_number_of_days_that_cannot_be_is_refused_with_its_variable(value: str) -> None:
    refused = recon("status", RECON_SEAL_AFTER_DAYS=value)
    assert (refused.exit_code, "RECON_SEAL_AFTER_DAYS is" in refused.said) == (2, True)
