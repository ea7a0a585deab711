"""A run that meets a migration is put off: it says so everywhere, changes nothing, and the next one does the work."""

from collections.abc import Callable

import pytest
from dagster import DagsterInstance
from fastapi.testclient import TestClient

from recon_pipeline.faces.serve.access import Secrets
from recon_pipeline.faces.serve.app import CRON_PATH, create_app
from recon_pipeline.faces.serve.guard import Guard
from recon_pipeline.faces.serve.runner import Runner
from recon_pipeline.settings import read_settings
from recon_pipeline.store.counters import repair
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.records import metrics
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.support.dagster import sensor_context
from recon_pipeline_tests.support.defined import alerts

MAY = ("--period", "2025-05", "--json")
LOCK = "lock table {} in access exclusive mode"
SAID = "The run was put off: another session has locked billing_usage_events or billing_usage_counters"


@pytest.fixture
def drifted(billing: Billing) -> Billing:
    """Three counters that are too low."""
    for customer in customers(3):
        billing.record(customer, 10)
        billing.set_counter(customer, 4)
    return billing


def hold_after_one_key(patch: pytest.MonkeyPatch, hold: Callable[[], object]) -> None:
    """Chunks of one key; after the first a migration begins."""
    patch.setattr(repair, "CHUNK_KEYS", 4)
    free_keys = Repairer.free_keys

    def then_hold(self: Repairer, ordinals: range) -> list[int]:
        busy = free_keys(self, ordinals)
        if ordinals[0] == 1:
            hold()
        return busy

    patch.setattr(Repairer, "free_keys", then_hold)


@pytest.mark.parametrize("table", ["billing_usage_events", "billing_usage_counters"])
def test_a_run_that_cannot_begin_is_put_off_and_says_so(
    drifted: Billing, run_history: DagsterInstance, table: str
) -> None:
    with drifted.session() as migration:
        migration.query(LOCK.format(table))
        output = recon("reconcile", *MAY)

    assert output.exit_code == 1
    assert (output.json["success"], output.json["put_off"], output.json["blocked"]) == (False, True, False)
    (error,) = output.json["errors"]
    assert SAID in error
    assert "No counter was changed." in error
    assert "let migrations set a lock_timeout" in error
    assert (output.json["rows_repaired"], output.json["reconcile_failures"]) == (0, 0)
    assert set(drifted.counters().values()) == {4}

    status = recon("status")
    assert "put off" in status.said
    assert recon("status", "--json").json["runs"][0]["outcome"] == "put_off"

    assert recon("reconcile", *MAY).exit_code == 0
    assert set(drifted.counters().values()) == {10}


def test_a_person_reads_it_in_words(drifted: Billing, run_history: DagsterInstance) -> None:
    with drifted.session() as migration:
        migration.query(LOCK.format("billing_usage_events"))
        output = recon("reconcile", "--period", "2025-05")

    assert (output.exit_code, "put off" in output.out, SAID in output.said) == (1, True, True)


def test_a_run_whose_months_cannot_be_read_is_put_off_before_it_begins(
    drifted: Billing, run_history: DagsterInstance
) -> None:
    with drifted.session() as migration:
        migration.query(LOCK.format("billing_usage_events"))
        output = recon("reconcile", "--json")

    assert output.exit_code == 1
    assert SAID in output.json["error"]
    assert drifted.value("select count(*) from recon.reconciliation_run") == 0


def test_a_migration_in_the_middle_of_a_repair_leaves_whole_chunks_which_are_reported(
    drifted: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with drifted.session() as migration, monkeypatch.context() as patch:
        hold_after_one_key(patch, lambda: migration.query(LOCK.format("billing_usage_events")))
        output = recon("reconcile", *MAY)
        migration.connection.rollback()

    assert (output.exit_code, output.json["put_off"], output.json["rows_repaired"]) == (1, True, 1)
    (error,) = output.json["errors"]
    assert "Repairs that were committed before stay" in error
    assert "No counter was changed" not in error
    assert sorted(drifted.counters().values()) == [4, 4, 10]
    assert recon("reconcile", *MAY).exit_code == 0


def test_a_run_that_is_put_off_raises_no_alarm_and_stands_in_the_totals(
    drifted: Billing, dagster_instance: DagsterInstance
) -> None:
    database = BillingDatabase(drifted.url)
    alerts(sensor_context(dagster_instance, ""))  # watches from now on
    with drifted.session() as migration:
        migration.query(LOCK.format("billing_usage_events"))
        recon("reconcile", *MAY)

    alerts(sensor_context(dagster_instance, ""))

    assert drifted.value("select count(*) from recon.alert_run") == 1, "it was noticed"
    assert drifted.value("select count(*) from recon.alert_state where subject = 'reconcile_runs'") == 0
    with database.transaction() as connection:
        known = metrics.read(connection)
    (totals,) = known.totals
    assert (totals.outcome, totals.runs, totals.reconcile_failures) == ("put_off", 1, 0)
    assert known.latest is None, "it has no figures, so it hides none"


def test_the_cron_endpoint_answers_that_it_is_to_be_tried_again(drifted: Billing, run_history: DagsterInstance) -> None:
    runner = Runner(read_settings(), BillingDatabase(drifted.url))
    client = TestClient(create_app(runner, Guard(Secrets(("secret",))), read_settings().scope, version="1"))
    with drifted.session() as migration:
        migration.query(LOCK.format("billing_usage_events"))
        answer = client.get(CRON_PATH, headers={"Authorization": "Bearer secret"})
    runner.wait(seconds=60)

    assert (answer.status_code, answer.json()) == (503, {"error": "Service unavailable"})
    assert answer.headers["Retry-After"]
