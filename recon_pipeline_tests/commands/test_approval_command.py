"""After a block the advice is a command: typed to the letter, it approves what was shown, and nothing else."""

import shlex
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance

from recon_pipeline.core.approving import ShownRun
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline_tests.commands.conftest import CommandResult, recon
from recon_pipeline_tests.reconciliation.billing import JUNE, MAY, Billing, customers

HOSTILE = 'it\'s "$HOME" `id`; <b> [red]'
EVERYBODY = ("a", "b", HOSTILE)
BOTH = (MAY, JUNE)
ALL_SHOWN = {(one, month) for one in EVERYBODY for month in ("2025-05", "2025-06")}


@pytest.fixture
def drifted(billing: Billing, run_history: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Counters of three customers are wrong in two months, and one repair a day needs no approval."""
    monkeypatch.setenv("RECON_MAX_REPAIRS", "1")
    for period in BOTH:
        for customer in EVERYBODY:
            billing.add_event(customer, 5, period=period)
            billing.add_counter(customer, 3, period=period)
    return billing


def advised(output: CommandResult) -> list[str]:
    """The arguments of the one command that the output gives, as a shell reads them."""
    (line,) = {line for line in output.out.splitlines() if line.startswith("recon reconcile ")}
    return shlex.split(line)[1:]


def repaired(billing: Billing) -> set[tuple[str, str]]:
    """Which keys were repaired, by customer and month."""
    rows = billing.query(
        "select gateway_customer_id, to_char(period_start at time zone 'UTC', 'YYYY-MM') from recon.counter_repair"
    )
    return {(customer, month) for customer, month in rows}


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (("--period", "2025-05"), {(one, "2025-05") for one in EVERYBODY}),
        (
            ("--period", "2025-05", "--period", "2025-06"),
            {(one, m) for one in EVERYBODY for m in ("2025-05", "2025-06")},
        ),
        (
            ("--all", "--customer", "a", "--customer", HOSTILE),
            {(one, month) for one in ("a", HOSTILE) for month in ("2025-05", "2025-06")},
        ),
        (("--period", "2025-06", "--customer", "b", "--customer", HOSTILE), {("b", "2025-06"), (HOSTILE, "2025-06")}),
    ],
)
def test_the_command_that_a_blocked_run_advises_repairs_exactly_what_it_has_shown(
    drifted: Billing, asked: tuple[str, ...], shown: set[tuple[str, str]]
) -> None:
    # Somebody has looked at everything: an approval without a run and its months would be of that.
    assert recon("reconcile", "--all").exit_code == 3
    blocked = recon("reconcile", *asked)
    assert (blocked.exit_code, repaired(drifted)) == (3, set())

    arguments = advised(blocked)
    approved = recon(*arguments)

    assert arguments[arguments.index("--approve") + 1] == "your reason"
    assert approved.exit_code == 0, approved.said
    assert repaired(drifted) == shown


def test_the_command_of_a_run_over_everything_is_short(drifted: Billing) -> None:
    blocked = recon("reconcile", "--all", "--dry-run")
    run_id = drifted.value("select run_id from recon.reconciliation_run")

    assert advised(blocked) == ["reconcile", "--all", "--approve-run", run_id[:8], "--approve", "your reason"]


def test_the_advice_says_where_to_click_and_what_to_paste(drifted: Billing) -> None:
    both = recon("reconcile", "--period", "2025-05", "--period", "2025-06", "--customer", "a")
    run_id = both.out.split(" run ")[1].split()[1]
    one = recon("reconcile", "--period", "2025-05")

    where = "Or in the UI: job reconcile, Materialize all, partitions {}, Config, Add config, with your reason:\n"
    assert where.format("[2025-05...2025-06]") in both.out
    assert where.format("2025-05") in one.out
    assert pasted(both) == {"approve_reason": "your reason", "approve_run": run_id[:8], "customers": ["a"]}
    assert "customers" not in pasted(one)


def pasted(output: CommandResult) -> dict[str, Any]:
    (line,) = {line for line in output.out.splitlines() if line.startswith("resources: ")}
    return yaml.safe_load(line)["resources"]["reconciler"]["config"]


@pytest.mark.parametrize("run_id", ["12345678-5be0", "1e123456-5be0", "0x1c7a52-5be0", "00000000-5be0"])
@pytest.mark.parametrize("customer", ["null", '{"a": [1', "2025-05-01", "ü 😀: #x"])
def test_what_is_pasted_is_text_whatever_it_looks_like(run_id: str, customer: str) -> None:
    may = BillingMonth(2025, 5)
    config = ShownRun(run_id, may, may, [customer], (may, may), reconciler="eu_reconciler").config()

    assert yaml.safe_load(config) == {
        "resources": {
            "eu_reconciler": {
                "config": {"approve_reason": "your reason", "approve_run": run_id[:8], "customers": [customer]}
            }
        }
    }


def test_a_run_that_repaired_since_leaves_nothing_for_the_command_to_approve(drifted: Billing) -> None:
    blocked = recon("reconcile", "--period", "2025-05")
    assert recon(*advised(blocked)).exit_code == 0
    for customer in EVERYBODY:
        drifted.set_counter(customer, 4)

    again = recon(*advised(blocked))

    assert again.exit_code == 3
    assert "which was approved, is no blocked run over the same months and customers" in again.said
    assert len(drifted.ledger()) == len(EVERYBODY)
    assert advised(again) != advised(blocked)


def test_a_first_run_of_a_part_advises_to_see_all_and_approves_that_part(drifted: Billing) -> None:
    drifted.query("delete from recon.accepted_usage")
    blocked = recon("reconcile", "--period", "2025-06", RECON_MAX_REPAIRS="100")

    assert "To see all, and how to approve them: recon reconcile --all --dry-run." in blocked.said
    assert recon(*advised(blocked)).exit_code == 0
    assert repaired(drifted) == {(one, "2025-06") for one in EVERYBODY}
    assert recon("status", "--json").json["waiting_for_approval"] == ["stripe:remote_commands"]


def test_events_that_left_the_log_are_approved_by_the_command_of_the_run_that_has_shown_them(
    billing: Billing, run_history: DagsterInstance
) -> None:
    for period in BOTH:
        for customer in customers(3):
            billing.record(customer, 4, period=period)
            billing.record(customer, 6, period=period)
    assert recon("reconcile", "--all").exit_code == 0
    billing.query("delete from billing_usage_events where quantity = 4")

    shown = recon("reconcile", "--period", "2025-06")

    assert shown.exit_code == 1
    assert recon(*advised(shown)).exit_code == 0
    assert billing.counters(period=JUNE) == dict.fromkeys(customers(3), 6)
    assert billing.counters(period=MAY) == dict.fromkeys(customers(3), 10)


def test_a_lost_log_and_then_its_counters_are_approved_by_the_commands_for_its_months_alone(
    billing: Billing, run_history: DagsterInstance
) -> None:
    for period in BOTH:
        billing.add_counter("a", 5, period=period)

    blocked = recon("reconcile", "--period", "2025-05")

    assert blocked.exit_code == 3
    shown = recon(*advised(blocked))
    assert shown.exit_code == 1
    assert (billing.counter("a"), billing.counter("a", period=JUNE)) == (5, 5)
    assert recon(*advised(shown)).exit_code == 0
    assert (billing.counter("a"), billing.counter("a", period=JUNE)) == (0, 5)


def test_status_and_explain_say_that_the_latest_run_was_blocked_with_the_command_that_approves_it(
    drifted: Billing,
) -> None:
    blocked = recon("reconcile", "--all")
    sentence = next(line for line in blocked.out.splitlines() if line.startswith("Blocked: "))

    status, explain = recon("status"), recon("explain", "--customer", "a")

    for output, title in (
        (status, "The latest run was blocked: a person has to approve it."),
        (explain, "The latest run over this customer was blocked."),
    ):
        lines = output.out.splitlines()
        assert lines[lines.index(title) + 1] == sentence
        assert advised(output) == advised(blocked)

    assert recon(*advised(blocked)).exit_code == 0
    for output in (recon("status"), recon("explain", "--customer", "a")):
        assert "blocked." not in output.out
        assert "a person has to approve it" not in output.out


def test_explain_says_nothing_of_a_block_that_was_not_over_the_customer(drifted: Billing) -> None:
    assert recon("reconcile", "--period", "2025-05", "--customer", "b", "--customer", HOSTILE).exit_code == 3

    (blocked,) = recon("explain", "--customer", "b", "--period", "2025-05", "--json").json["blocked"]
    assert blocked["outcome"] == "blocked"
    assert recon("explain", "--customer", "a", "--period", "2025-05", "--json").json["blocked"] == []
    assert recon("explain", "--customer", "b", "--period", "2025-06", "--json").json["blocked"] == []
