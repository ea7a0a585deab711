"""Refuse to be fooled: code meets schema `recon` of another version, and says so before it does anything else."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from recon_pipeline.faces.serve.health import health_routes
from recon_pipeline.store.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import (
    MakeBilling,
    billing,
    dagster_environment,
    make_billing,
    orchestrated,
    recon,
)
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.product import run_job
from recon_pipeline_tests.support.serving import serving_here

__all__ = ["MakeBilling", "billing", "dagster_environment", "make_billing", "orchestrated"]

OLDER, NEWER = "0001", "9999"
WHY = ("--reason", "INC-1")
COMMANDS: dict[str, tuple[str, ...]] = {
    "reconcile": ("reconcile", "--period", "2025-05"),
    "reconcile in full": ("reconcile", "--period", "2025-05", "--full"),
    "reconcile dry": ("reconcile", "--period", "2025-05", "--dry-run"),
    "status": ("status",),
    "explain": ("explain", "--customer", "a"),
    "pause": ("pause", *WHY),
    "resume": ("resume",),
    "hold": ("hold", "--customer", "a", *WHY, "--until", "3d"),
    "release": ("release", "--customer", "a"),
    "undo": ("undo", "RUN", *WHY),
    "backfill-events": ("backfill-events", "SOURCE", "--no-reconcile"),
    "backfills": ("backfills",),
    "rejected": ("rejected", "3f2a91c0"),
    "serve": ("serve", "--port", "48231"),
}
VERSIONS = pytest.mark.parametrize("version", [OLDER, NEWER], ids=["older", "newer"])
EVERYTHING = """
    select jsonb_build_object(
        'counters', (select jsonb_agg(to_jsonb(row) order by id) from billing_usage_counters as row),
        'log', (select count(*) from billing_usage_events),
        'runs', (select count(*) from recon.reconciliation_run),
        'repairs', (select count(*) from recon.counter_repair),
        'controls', (select count(*) from recon.control),
        'holds', (select count(*) from recon.hold),
        'batches', (select count(*) from recon.backfill_batch)
    )
"""
CSV = (
    "gateway_name,gateway_customer_id,usage_type,request_id,quantity,period_start,period_end,event_timestamp\n"
    "stripe,a,remote_commands,late,1,2025-05-01T00:00:00Z,2025-06-01T00:00:00Z,2025-05-02T00:00:00Z\n"
)


@pytest.fixture
def of_version(billing: Billing) -> Callable[[str], tuple[Billing, str]]:
    """`of_version(version)` gives a database that was reconciled once, has drifted since, and is of that version."""

    def make(version: str) -> tuple[Billing, str]:
        billing.record("a", 10)
        billing.set_counter("a", 4)
        first = recon("reconcile", "--period", "2025-05", "--approve", "the first run", "--json").json
        billing.set_counter("a", 5)
        billing.query("update recon.schema_version set version_num = %s", version)
        return billing, first["run_id"]

    return make


def fix(version: str) -> tuple[str, ...]:
    """What the refusal has to name."""
    return ("recon init",) if version == OLDER else ("upgrade", "newer")


def assert_names_the_fix(said: str, version: str) -> None:
    assert any(word in said.lower() for word in fix(version)), said
    assert "Traceback" not in said


@VERSIONS
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_refuses_a_schema_of_another_version_and_changes_nothing(
    of_version: Callable[[str], tuple[Billing, str]],
    command: str,
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    billing, run_id = of_version(version)
    source = tmp_path / "late.csv"
    source.write_text(CSV)
    monkeypatch.setenv("CRON_SECRET", "a-secret-of-some-length")
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    before = billing.value(EVERYTHING)

    told = recon(*[{"RUN": run_id, "SOURCE": str(source)}.get(part, part) for part in COMMANDS[command]])

    assert told.exit_code in (1, 2), told.said
    assert_names_the_fix(told.said, version)
    assert billing.value(EVERYTHING) == before


@VERSIONS
def test_the_doctor_reports_a_schema_of_another_version(
    of_version: Callable[[str], tuple[Billing, str]], version: str
) -> None:
    of_version(version)

    told = recon("doctor")

    assert told.exit_code == 1
    assert_names_the_fix(told.said, version)


@VERSIONS
def test_a_run_of_the_schedule_refuses_a_schema_of_another_version(
    of_version: Callable[[str], tuple[Billing, str]], version: str
) -> None:
    billing, _ = of_version(version)
    before = billing.value(EVERYTHING)

    result = run_job()

    assert not result.success
    assert_names_the_fix(result.errors.replace("Traceback", ""), version)
    assert billing.value(EVERYTHING) == before


@VERSIONS
def test_health_is_not_well_with_a_schema_of_another_version(
    of_version: Callable[[str], tuple[Billing, str]],
    version: str,
    orchestrated: None,
) -> None:
    billing, _ = of_version(version)
    app = FastAPI()
    app.include_router(health_routes(BillingDatabase(billing.url)))

    with serving_here(app) as server:
        reply = server.get("/healthz/ready")

    assert reply.status == 503
    assert_names_the_fix(reply.body, version)
