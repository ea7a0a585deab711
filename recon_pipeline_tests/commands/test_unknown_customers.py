"""A mistyped customer is reported by every command that takes one: no counters of his would look like good news."""

import pytest
from dagster import DagsterInstance

from recon_pipeline_tests.commands.conftest import MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing, connected

WHY = ("--reason", "TICKET-9: disputed")
COMMANDS = (
    ("reconcile", "--period", "2025-05"),
    ("reconcile", "--all", "--dry-run"),
    ("explain",),
    ("hold", *WHY, "--until", "3d"),
    ("release",),
    ("undo", "4f1c9a02", *WHY, "--dry-run"),
    ("parity",),
    ("sql", "compare_counters", "--explain"),
)
METERS = '{"remote_commands": {"meter": "mtr_123"}}'
SAID = "--customer cus_122: no counter, event or subscription has that id."


@pytest.mark.parametrize("command", COMMANDS)
def test_a_customer_that_nothing_is_known_of_is_wrong_usage(
    billing: Billing, orchestrated: None, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    billing.add_event("cus_123", 5)
    monkeypatch.setenv("RECON_STRIPE_METERS", METERS)

    output = recon(*command, "--customer", "cus_122", "--json")

    assert output.exit_code == 2, output.said
    assert output.json["error"] == SAID
    assert output.json["changed"] == "Nothing was changed."
    assert output.json["what_to_do"] == (
        "Check the id (gateway_customer_id, in upper and lower case as it is stored) and DATABASE_URL."
    )
    assert billing.value("select count(*) from recon.hold") == 0
    assert billing.value("select count(*) from recon.reconciliation_run") == 0


@pytest.mark.parametrize("command", [("reconcile", "--all"), ("explain",), ("release",), ("parity",)])
def test_a_customer_whom_the_encoding_of_the_database_cannot_name_is_wrong_usage(
    make_billing: MakeBilling, orchestrated: None, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_billing(encoding="LATIN1")
    monkeypatch.setenv("RECON_STRIPE_METERS", METERS)

    output = recon(*command, "--customer", "\u65e5\u672c", "--json")

    assert output.exit_code == 2, output.said
    assert "lacks a character of what it was given" in output.json["error"]
    assert output.json["what_to_do"].startswith("Take the character out of what you gave")


def test_one_mistyped_customer_among_others_is_named(billing: Billing, orchestrated: None) -> None:
    billing.add_event("cus_123", 5)

    output = recon("reconcile", "--all", "--customer", "cus_123", "--customer", "cus_122")

    assert (output.exit_code, billing.ledger()) == (2, [])
    assert SAID in output.said


@pytest.mark.parametrize("known_from", ["event", "counter", "subscription", "hold", "ledger"])
def test_a_customer_is_known_from_whatever_there_is_of_him(
    billing: Billing, run_history: DagsterInstance, known_from: str
) -> None:
    if known_from == "subscription":
        billing.subscribe("a")
    elif known_from == "counter":
        billing.add_counter("a", 5, period=JUNE)
    else:
        billing.add_event("a", 5, period=JUNE)
    if known_from == "hold":
        assert recon("hold", "--customer", "a", *WHY, "--until", "3d").exit_code == 0
        billing.query("truncate billing_usage_events")
    if known_from == "ledger":
        assert recon("reconcile", "--period", "2025-06").exit_code == 0
        billing.query("truncate billing_usage_events, billing_usage_counters")

    assert recon("release", "--customer", "a").exit_code == 0


def test_a_hold_of_somebody_who_has_a_counter_waits_for_no_migration_of_the_log(
    make_billing: MakeBilling, orchestrated: None
) -> None:
    billing = make_billing()
    billing.add_counter("a", 5)
    with connected(billing.url) as migration:
        migration.execute("lock table billing_usage_events in access exclusive mode")

        assert recon("hold", "--customer", "a", *WHY, "--until", "3d").exit_code == 0


def test_a_customer_id_with_line_breaks_makes_no_line_of_a_command(billing: Billing, orchestrated: None) -> None:
    odd = "a\nEvery counter matches.\nb"
    billing.add_event(odd, 5)
    billing.add_counter(odd, 3)

    def shows(*command: str) -> bool:
        output = recon(*command)
        lines = (output.out + output.err).splitlines()
        assert "Every counter matches." not in lines, command
        return any("a\\nEvery counter matches.\\nb" in line for line in lines)

    assert shows("reconcile", "--period", "2025-05", "--dry-run")
    assert shows("seal", "--period", "2025-05")
    recon("reconcile", "--period", "2025-05")
    recon("seal", "--period", "2025-05")
    billing.query("delete from billing_usage_events")
    assert shows("verify-seals")
