"""What left the log, as `recon reconcile` says it in its JSON and by its exit code, and lets it be approved."""

import pytest

from recon_pipeline_tests.commands.conftest import CommandResult, MakeBilling, recon
from recon_pipeline_tests.reconciliation.billing import Billing, customers

CUSTOMERS = customers(6)
LEFT = {"partition": "2025-05", "keys": 6, "events": 6, "units": "24"}


@pytest.fixture(params=["prepared", "prepared_full"])
def shrunk(make_billing: MakeBilling, request: pytest.FixtureRequest) -> Billing:
    """Everyone used 10 in May, which a run has counted; then events of 4 were deleted."""
    billing = make_billing(template=request.param)
    for customer in CUSTOMERS:
        billing.record(customer, 4)
        billing.record(customer, 6)
    assert run().exit_code == 0
    billing.query("delete from billing_usage_events where quantity = 4")
    return billing


def run(*options: str) -> CommandResult:
    return recon("reconcile", "--period", "2025-05", "--json", *options)


def test_a_run_says_what_left_exits_with_1_and_an_approval_lowers_it(shrunk: Billing) -> None:
    shown = run()
    assert (shown.exit_code, shown.json["events_left_the_log"]) == (1, [LEFT]), shown.said
    assert shrunk.counters() == dict.fromkeys(CUSTOMERS, 10)

    approved = run("--approve", "TICKET-1: a test account")

    assert (approved.exit_code, approved.json["events_left_the_log"]) == (0, []), approved.said
    assert shrunk.counters() == dict.fromkeys(CUSTOMERS, 6)
    assert shrunk.query(
        "select run_id, approved_reason from recon.reconciliation_run where approved_reason is not null"
    ) == [(approved.json["run_id"], "TICKET-1: a test account")]


def test_a_dry_run_shows_what_left_and_can_be_approved(shrunk: Billing) -> None:
    dry = run("--dry-run")
    assert (dry.exit_code, dry.json["events_left_the_log"]) == (1, [LEFT]), dry.said

    assert run("--approve", "TICKET-1").exit_code == 0
    assert shrunk.counters() == dict.fromkeys(CUSTOMERS, 6)
