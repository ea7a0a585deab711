"""What Prometheus gets, and the dashboard and rules made for it, checked by Prometheus's own tool."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from recon_pipeline.faces.serve import health
from recon_pipeline.faces.serve.health import RecentFigures, health_routes
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import MAY, Billing
from recon_pipeline_tests.support.serving import Caller, serving_here

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
RUNBOOK = (MONITORING.parent / "runbook.md").read_text()
PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing: apt-get install prometheus")
OPEN_A_RECORD = """
    insert into recon.reconciliation_run (
        run_id, started_at, finished_at, mode, scope, first_partition, last_partition, outcome,
        drift_count, dedupe_count, reconcile_failures, over_quota_transitions, mismatch_count
    )
    values (
        %s, now() - interval '5 seconds', now(), 'full', '{}', '2025-05',
        to_char(now() at time zone 'UTC', 'YYYY-MM'), %s, 7, 5, 3, 2, 1
    )
"""
COUNTED = ("drift_count", "dedupe_count", "reconcile_failures", "over_quota_transitions")


@pytest.fixture
def monitored(billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Billing, Caller]]:
    """A database, and who serves its metrics, always fresh."""
    monkeypatch.setattr(health, "METRICS_SECONDS", -1.0)
    with serving(billing) as caller:
        yield billing, caller


def serving(billing: Billing) -> AbstractContextManager[Caller]:
    """A process of its own, as far as metrics go."""
    app = FastAPI()
    app.include_router(health_routes(BillingDatabase(billing.url)))
    return serving_here(app)


def samples(caller: Caller) -> dict[str, float]:
    """Every sample by its name with labels."""
    reply = caller.get("/metrics")
    assert reply.status == 200
    found = {}
    for family in text_string_to_metric_families(reply.body):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[sample.name + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_figures_of_real_runs_are_exposed_and_continue_in_another_process(monitored: tuple[Billing, Caller]) -> None:
    billing, caller = monitored
    before = samples(caller)
    assert before["recon_drift_count_total"] == 0
    assert before["recon_last_success_timestamp_seconds"] == 0
    assert "recon_drifted_keys" not in before, "an unknown value is not exposed as 0"

    for customer, counted in (("missing", None), ("under", 40), ("over", 70)):
        billing.add_event(customer, 60, event_timestamp=MAY[0])
        if counted is not None:
            billing.add_counter(customer, counted)
    looked_only = recon("reconcile", "--all", "--dry-run", "--json").json
    assert looked_only["over_quota_transitions"] == 2, "what a repair would do, which is no transition yet"
    assert recon("reconcile", "--all").exit_code == 0
    billing.query(OPEN_A_RECORD, "open", "running")
    billing.query(
        "insert into recon.hold (gateway_customer_id, reason, held_by, until) "
        "values ('x', 'r', 'me', now() + interval '1 hour')"
    )
    billing.query("insert into recon.control (action, reason, acted_by) values ('pause', 'INC-4', 'me')")
    after = samples(caller)
    expected = {
        "recon_drift_count_total": 6,
        "recon_rows_repaired_total": 3,
        "recon_over_quota_transitions_total": 2,
        "recon_reconcile_failures_total": 0,
        "recon_runs_total{outcome=clean}": 1,
        "recon_runs_total{outcome=failed}": 0,
        "recon_drifted_keys": 3,
        "recon_mismatched_keys": 0,
        "recon_drifted_units{direction=missed}": 80,
        "recon_drifted_units{direction=excess}": 10,
        "recon_open_holds": 1,
        "recon_paused": 1,
        "recon_alerts_undelivered": 0,
        "recon_alerts_failing{severity=error}": 0,
    }
    assert {name: after[name] for name in expected} == expected
    assert after["recon_last_run_duration_seconds"] > 0
    success = billing.value(
        "select extract(epoch from finished_at)::float from recon.reconciliation_run where outcome = 'clean'"
    )
    assert after["recon_last_success_timestamp_seconds"] == pytest.approx(success)
    with serving(billing) as another:
        assert samples(another) == pytest.approx(after, abs=5)


def test_counters_only_grow_while_runs_begin_end_and_fail(monitored: tuple[Billing, Caller]) -> None:
    billing, caller = monitored
    seen = []
    for number, outcome in enumerate(("clean", "failed", "blocked", "running", "paused", "compared", "not_clean")):
        billing.query(OPEN_A_RECORD, str(number), outcome)
        output = samples(caller)
        seen.append(tuple(output[f"recon_{name}_total"] for name in COUNTED))
    ended, repaired = [1, 2, 3, 3, 4, 5, 6], [1, 2, 2, 2, 3, 3, 4]
    assert seen == [(7 * runs, 5 * runs, 3 * runs, 2 * repairs) for runs, repairs in zip(ended, repaired, strict=True)]


def test_horizon_lag_is_reported_in_seconds(monitored: tuple[Billing, Caller]) -> None:
    billing, caller = monitored
    assert samples(caller)["recon_horizon_lag_seconds"] == 0
    with billing.session() as other:
        other.query("select pg_current_xact_id()")
        billing.query("select pg_current_xact_id()")  # a later one has ended
        assert 0 < samples(caller)["recon_horizon_lag_seconds"] < 300


def test_many_scrapes_are_one_question_to_the_database(billing: Billing) -> None:
    now = 100.0
    figures = RecentFigures(BillingDatabase(billing.url), clock=lambda: now)
    first = figures()
    billing.query(OPEN_A_RECORD, "one", "clean")
    assert figures() is first
    now += health.METRICS_SECONDS + 0.1
    assert sum(total.runs for total in figures().totals) == 1


@with_promtool
def test_the_metrics_follow_the_conventions(monitored: tuple[Billing, Caller]) -> None:
    billing, caller = monitored
    billing.query(OPEN_A_RECORD, "one", "clean")
    reply = caller.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    output = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=reply.body, capture_output=True, text=True, check=False, timeout=30
    )
    assert (output.returncode, output.stdout + output.stderr) == (0, "")


@with_promtool
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "prometheus-rules.yml"), ("test", "rules", "prometheus-rules-test.yml")]
)
def test_the_alert_rules_are_valid_and_pass_their_tests(arguments: tuple[str, ...]) -> None:
    output = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=MONITORING, capture_output=True, text=True, check=False, timeout=60
    )
    assert output.returncode == 0, output.stdout + output.stderr


def test_rules_and_dashboard_ask_only_for_what_is_there(monitored: tuple[Billing, Caller]) -> None:
    billing, caller = monitored
    billing.query(OPEN_A_RECORD, "one", "clean")
    there = {name.partition("{")[0] for name in samples(caller)}
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    rules = (MONITORING / "prometheus-rules.yml").read_text()
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"recon_[a-z_]+", target["expr"])
    } | {name for line in rules.splitlines() if "expr:" in line for name in re.findall(r"recon_[a-z_]+", line)}
    assert asked <= there
    assert {f"recon_{name}_total" for name in COUNTED} <= asked
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(identities) == len(set(identities))


def test_every_rule_names_a_section_of_the_runbook() -> None:
    rules = (MONITORING / "prometheus-rules.yml").read_text()
    named = re.findall(r'runbook: "docs/runbook\.md, (.*)"', rules)
    sections = [line.lstrip("# ").replace("`", "") for line in RUNBOOK.splitlines() if line.startswith("## ")]
    assert len(named) == rules.count("- alert:")
    assert [name for name in named if name not in sections] == []
