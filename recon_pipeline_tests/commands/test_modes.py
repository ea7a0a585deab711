"""A run is incremental where it can be and full where it must be or was asked to; each says which, and why."""

from dagster import DagsterInstance

from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.commands.modes import FOLLOWED, MAY, is_incremental, mode, run_may
from recon_pipeline_tests.commands.test_reconcile_command import checks
from recon_pipeline_tests.reconciliation.billing import Billing

FULL = ("reconcile", "--period", "2025-05", "--full")


def test_full_is_full_as_it_was_asked_for_checks_the_stored_sums_and_the_next_tick_is_incremental(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.record("a", 7)
    before = recon("reconcile", *MAY).json
    assert before["mode"] == "incremental"
    assert "aggregates_match_events" not in checks(run_history, before["run_id"])

    output = recon(*FULL, "--json")

    assert output.exit_code == 0, output.said
    figures = output.json
    assert (figures["mode"], figures["mode_reason"]) == ("full", "it was asked for")
    assert figures["aggregates_differing"] == 0
    assert checks(run_history, figures["run_id"])["aggregates_match_events"].passed
    assert is_incremental(), "what was asked of one run is not asked of the next"
    after = run_may()
    assert (after["mode"], after["mode_reason"], after["rebuilt_because"]) == ("incremental", None, None)
    shown = recon(*FULL)
    assert "full: it was asked for" in shown.said
    status = recon("status", "--json").json["runs"]
    assert [(run["mode"], run["mode_reason"]) for run in status[:3]] == [
        ("full", "it was asked for"), ("incremental", None), ("full", "it was asked for"),
    ]  # fmt: skip


def test_full_finds_a_stored_sum_that_is_wrong_says_so_and_repairs_what_was_repaired_by_it(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.record("a", 7)
    billing.record("b", 7)
    run_may()
    billing.query("update recon.usage_aggregate set usage_count = 9 where gateway_customer_id = 'a'")
    billing.set_counter("a", 9)

    output = recon(*FULL, "--json", RECON_MAX_EVENTS_LEFT=FOLLOWED)  # as if an event of two units had left

    check = checks(run_history, output.json["run_id"])["aggregates_match_events"]
    assert (check.passed, check.severity.name) == (False, "ERROR")
    assert "1 stored sums of 2025-05 were not what the log adds up to" in (check.description or "")
    assert (output.json["aggregates_differing"], output.json["rows_repaired"]) == (1, 1)
    assert billing.counters() == {"a": 7, "b": 7}
    again = recon(*FULL, "--json")
    assert (again.exit_code, again.json["aggregates_differing"]) == (0, 0)
    assert run_may()["drift_count"] == 0


def test_full_without_ingest_xid_has_no_stored_sums_to_check(
    make_billing: MakeBilling, run_history: DagsterInstance
) -> None:
    billing = make_billing(template="prepared_full")
    billing.record("a", 7)
    output = recon(*FULL, "--json")
    assert (output.exit_code, output.json["mode"], output.json["mode_reason"]) == (0, "full", "it was asked for")
    assert "aggregates_match_events" not in checks(run_history, output.json["run_id"])
    assert mode() == ("full", "billing_usage_events has no column ingest_xid")
