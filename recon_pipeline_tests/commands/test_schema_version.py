"""Code of one release never works on the schema of another: every face compares versions first, and says what to do."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster import DagsterInstance
from dagster._core.errors import DagsterUserCodeExecutionError
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event

from recon_pipeline.core.errors import SchemaVersionError
from recon_pipeline.faces.serve.health import health_routes
from recon_pipeline.store.counters import repair
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.log.decision import decision
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline.store.postgres.schema_version import SCHEMA_VERSION
from recon_pipeline.store.records import migrate
from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import new_run, run_job

SET_VERSION = "update recon.schema_version set version_num = %s"
STATES = {
    "yesterday's": ("update recon.schema_version set version_num = '0001'", "is at version 0001", "recon init"),
    "tomorrow's": (
        "update recon.schema_version set version_num = '0999'",
        "is at version 0999",
        "upgrade this package",
    ),
    "missing": ("drop schema recon cascade", "was never prepared", "recon init"),
    "empty": ("drop table recon.schema_version", "was never prepared", "recon init"),
    "without a row": ("delete from recon.schema_version", "was never prepared", "recon init"),
}
EVENTS_CSV = (
    "gateway_name,gateway_customer_id,usage_type,request_id,period_start,period_end,quantity\n"
    "stripe,a,remote_commands,late,2026-05-01T00:00Z,2026-06-01T00:00Z,3\n"
)


def commands(file: Path) -> tuple[tuple[str, ...], ...]:
    """Every command that opens the billing database to work on it or to show its state."""
    return (
        ("reconcile", "--period", "2025-05"),
        ("reconcile",),
        ("reconcile", "--all", "--dry-run"),
        ("status",),
        ("explain", "--customer", "a"),
        ("pause", "--reason", "a migration"),
        ("resume",),
        ("hold", "--customer", "a", "--reason", "asked", "--until", "2h"),
        ("release", "--customer", "a"),
        ("undo", "4f1c9a02", "--reason", "wrong"),
        ("backfill-events", str(file), "--dry-run"),
        ("backfill-events", str(file)),
        ("backfills",),
        ("rejected", "4f1c9a02"),
        ("count-lake", "--period", "2025-05", "--withdraw", "--reason", "wrong"),
    )


def test_the_version_that_this_code_needs_is_that_of_its_last_migration() -> None:
    """The constant keeps Alembic, which takes long to load, out of every command."""
    script = ScriptDirectory.from_config(migrate._config())

    assert script.get_current_head() == SCHEMA_VERSION
    revisions = [one.revision for one in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True), "an older version sorts before a newer one"
    assert all(len(revision) == len(SCHEMA_VERSION) for revision in revisions)


@pytest.mark.parametrize("state", STATES)
def test_every_command_refuses_a_schema_that_is_not_its_own_and_changes_no_counter(
    billing: Billing, run_history: DagsterInstance, tmp_path: Path, state: str
) -> None:
    change, what, fix = STATES[state]
    billing.record("a", 10)
    billing.set_counter("a", 4)
    billing.query(change)
    file = tmp_path / "late.csv"
    file.write_text(EVENTS_CSV)

    for command in commands(file):
        output = recon(*command)

        assert output.exit_code == 1, (command, output)
        assert what in output.said, (command, output)
        assert fix in output.said.partition("What to do:")[2], (command, output)
        assert billing.counters() == {"a": 4}, command
    assert billing.value("select count(*) from billing_usage_events") == 1


def test_the_refusal_is_one_json_object_too(billing: Billing) -> None:
    billing.query(SET_VERSION, "0999")

    output = recon("status", "--json").json

    assert output["success"] is False
    assert "version 0999" in output["error"]


@pytest.mark.parametrize("state", ["yesterday's", "tomorrow's", "missing"])
def test_doctor_reports_it_as_a_requirement_that_fails(
    billing: Billing, run_history: DagsterInstance, state: str
) -> None:
    billing.query(STATES[state][0])

    output = recon("doctor", "--json")

    (finding,) = [one for one in output.json["findings"] if one["requirement"] == "schema recon"]
    assert (output.exit_code, finding["verdict"]) == (1, "fail")
    assert STATES[state][2] in finding["mend"]


def test_init_brings_an_unprepared_database_up_to_date_and_leaves_a_newer_one(make_billing: MakeBilling) -> None:
    billing = make_billing(template="billing")

    assert recon("init").exit_code == 0
    billing.query(SET_VERSION, "0999")
    output = recon("init")

    assert output.exit_code == 1
    assert "0999" in output.said


@pytest.mark.parametrize("version", ["0001", "0999"])
def test_a_run_of_the_job_is_refused_in_the_words_of_the_error(billing: Billing, version: str) -> None:
    billing.record("a", 10)
    billing.set_counter("a", 4)
    billing.query(SET_VERSION, version)

    result = run_job()

    assert not result.success
    assert f"is at version {version}" in result.errors
    assert billing.counters() == {"a": 4}
    assert billing.value("select count(*) from recon.reconciliation_run") == 0


def test_a_version_that_changes_within_a_run_stops_it_before_its_next_decision(
    billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps of a run share a connection, which was looked at when it was opened."""
    for customer in ("a", "b", "c"):
        billing.record(customer, 10)
        billing.set_counter(customer, 4)
    monkeypatch.setattr(repair, "CHUNK_KEYS", 4)  # chunks of one key
    first_chunk = Repairer.free_keys

    def then_upgrade(self: Repairer, ordinals: range) -> list[int]:
        busy = first_chunk(self, ordinals)
        billing.query(SET_VERSION, "0999")
        return busy

    monkeypatch.setattr(Repairer, "free_keys", then_upgrade)

    result = run_job()

    assert not result.success
    assert "is at version 0999" in result.errors
    assert sorted(billing.counters().values()) == [4, 4, 10], "the first chunk only"


def test_a_kept_connection_notices_the_change_in_its_next_decision(billing: Billing) -> None:
    database = BillingDatabase(billing.url, keeps_connection=True)
    with database.connection() as connection, decision(connection):
        pass
    billing.query(SET_VERSION, "0999")

    with (
        pytest.raises(SchemaVersionError, match="is at version 0999"),
        database.connection() as connection,
        decision(connection),
    ):
        pass
    with pytest.raises(SchemaVersionError), database.connection():
        pass
    database.close()


def test_a_repair_through_the_store_alone_is_refused(billing: Billing) -> None:
    billing.query(SET_VERSION, "0999")

    with pytest.raises(SchemaVersionError):
        new_run(billing.url).compare()


@pytest.mark.parametrize("version", ["0001", "0999"])
def test_the_tick_of_the_schedule_says_it(billing: Billing, run_history: DagsterInstance, version: str) -> None:
    from recon_pipeline_tests.support.defined import reconcile_every_5_minutes

    billing.query(SET_VERSION, version)
    context = dg.build_schedule_context(instance=run_history)

    with pytest.raises(DagsterUserCodeExecutionError) as failed:
        reconcile_every_5_minutes.evaluate_tick(context)

    assert f"is at version {version}" in str(failed.value.__cause__)


@pytest.mark.parametrize(
    ("version", "said"),
    [("0001", "by an older release, or none: recon init"), ("0999", "by a newer release: upgrade this")],
)
@pytest.mark.parametrize("path", ["/healthz/ready", "/healthz/reconciled"])
def test_the_health_of_the_server_says_it(
    billing: Billing, run_history: DagsterInstance, path: str, version: str, said: str
) -> None:
    billing.query(SET_VERSION, version)
    app = FastAPI()
    app.include_router(health_routes(BillingDatabase(billing.url)))

    answer = TestClient(app).get(path)

    assert answer.status_code == 503
    assert any(said in one for one in answer.json()["failing"])


def test_the_version_is_asked_for_once_for_each_connection_of_a_run(billing: Billing) -> None:
    asked: list[str] = []
    database = BillingDatabase(billing.url, keeps_connection=True)

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(*call: Any) -> None:
        asked.extend(call[2] for _ in range("schema_version" in call[2]))

    for _ in range(5):
        with database.transaction():
            pass
    event.remove(database.engine, "before_cursor_execute", note)
    database.close()

    assert len(asked) == 1
