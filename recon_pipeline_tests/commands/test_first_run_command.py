"""The first run as a person meets it on the command line: what it prints, what it waits for, and what is assumed."""

from dagster import DagsterInstance

from recon_pipeline_tests.commands.conftest import recon
from recon_pipeline_tests.reconciliation.billing import Billing

REASON = "checked against the invoices"


def test_a_first_run_prints_the_largest_differences_and_goes_on_once_they_are_approved(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.query("delete from recon.accepted_usage")
    for number in range(21):
        billing.add_event(f"cus_{number:02}", 5)
        billing.add_counter(f"cus_{number:02}", 6 + number)
    billing.add_event("cus_quota", 60)
    before = billing.counters()

    shown = recon("reconcile", "--all", "--dry-run")

    assert shown.exit_code == 3
    assert "The 20 largest differences" in shown.said
    assert "cus_20 remote_commands 2025-05-01 to 2025-06-01: over, counter 26, event sum 5 (-21)" in shown.said
    assert "and 2 more, in recon.counter_drift" in shown.said
    assert "recon reconcile --all --approve-run " in shown.said
    facts = recon("reconcile", "--all", "--json")
    assert (facts.exit_code, facts.json["blocked"]) == (3, True)
    largest = facts.json["largest"]
    assert len(largest) == 20
    assert (largest[0]["gateway_customer_id"], largest[0]["quota_transition"]) == ("cus_quota", "over")
    assert [(key["gateway_customer_id"], key["difference"]) for key in largest[1:3]] == [
        ("cus_20", "-21"),
        ("cus_19", "-20"),
    ]
    assert billing.counters() == before
    status = recon("status")
    assert "stripe:remote_commands waits for its first run to be approved" in status.said
    assert recon("status", "--json").json["waiting_for_approval"] == ["stripe:remote_commands"]
    assert "nothing of stripe:remote_commands is repaired before its first run was approved" in recon("doctor").said

    approved = recon("reconcile", "--all", "--approve", REASON, "--json")

    assert (approved.exit_code, approved.json["rows_repaired"], approved.json["largest"]) == (0, 22, [])
    assert recon("status", "--json").json["waiting_for_approval"] == []


def test_a_reported_key_is_printed_with_the_reason_why_it_is_left_alone(
    billing: Billing, run_history: DagsterInstance
) -> None:
    billing.add_event("a", 5)
    assert recon("hold", "--customer", "a", "--reason", "a [refund] is discussed", "--until", "1d").exit_code == 0

    output = recon("reconcile", "--all", "--dry-run")

    assert "a [refund] is discussed" in " ".join(output.out.split())


def test_doctor_ends_with_what_is_taken_for_granted_and_where_it_was_learnt(billing: Billing) -> None:
    assumed = {one["about"]: one for one in recon("doctor", "--json").json["assumptions"]}

    assert set(assumed) == {
        "identity",
        "completeness",
        "periods",
        "limits",
        "quantities",
        "deletion",
        "settling",
    }
    assert assumed["identity"]["learnt_from"] == "RECON_EVENT_IDENTITY, and a unique key of the log"
    assert assumed["completeness"]["learnt_from"] == "the default of RECON_START_PERIOD"
    assert "active or trialing" in assumed["limits"]["assumed"]
    assert "Nobody has said that events of negative quantity are credits" in assumed["quantities"]["assumed"]
    declared = recon("doctor", "--json", RECON_NEGATIVE_QUANTITIES="sum").json["assumptions"]
    assert "Events of negative quantity are credits" in str(declared)
    paragraph = recon("doctor", RECON_START_PERIOD="2025-03").out.split("What this installation assumes: ")[1]
    words = " ".join(paragraph.split())
    assert "The log holds all events from 2025-03 on" in words
    assert "(RECON_START_PERIOD)" in words

    billing.query(
        "alter table billing_usage_events drop constraint billing_usage_events_gateway_name_request_id_key; "
        "drop table billing_subscriptions"
    )
    assumed = {one["about"]: one for one in recon("doctor", "--json").json["assumptions"]}
    assert "no unique key of the log says so" in assumed["identity"]["learnt_from"]
    assert assumed["limits"]["assumed"] == "Limits are unknown"


def test_doctor_counts_counters_that_no_run_compares(billing: Billing) -> None:
    billing.query(
        "insert into billing_usage_counters "
        "(gateway_name, gateway_customer_id, usage_type, period_start, period_end, usage_count) "
        "values ('stripe', 'cus_lifetime', 'remote_commands', '-infinity', 'infinity', 9)"
    )

    said = " ".join(recon("doctor").out.split())

    assert "1 counters begin before RECON_START_PERIOD" in said
    assert "cus_lifetime" in said
