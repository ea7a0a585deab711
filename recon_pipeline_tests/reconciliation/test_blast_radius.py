"""Rule 6: a repair beyond a budget is blocked before its first write, until a person approves it with a reason."""

import pytest

from recon_pipeline.core.guards import SHARE_FLOOR_KEYS, Budgets, DriftSummary, breaches
from recon_pipeline_tests.reconciliation.billing import Billing, customers
from recon_pipeline_tests.reconciliation.product import run_job

AT_FLOOR = SHARE_FLOOR_KEYS


def variables(summary: DriftSummary, budgets: Budgets) -> set[str]:
    return {breach.variable for breach in breaches(summary, budgets)}


@pytest.mark.parametrize(("repairs", "blocked"), [(6, False), (7, False), (8, True)])
def test_the_number_of_repairs_is_blocked_above_its_budget(repairs: int, *, blocked: bool) -> None:
    found = variables(DriftSummary(counters_scanned=10_000, over=repairs), Budgets(max_repairs=7))

    assert found == ({"RECON_MAX_REPAIRS"} if blocked else set())


@pytest.mark.parametrize("kind", ["missing", "under", "over", "orphan"])
def test_every_kind_of_drift_counts_as_a_repair(kind: str) -> None:
    summary = DriftSummary(counters_scanned=10_000, **{kind: 8})

    assert variables(summary, Budgets(max_repairs=7)) == {"RECON_MAX_REPAIRS"}


@pytest.mark.parametrize(("repairs", "blocked"), [(99, False), (100, False), (101, True)])
def test_the_share_of_repairs_is_blocked_above_its_budget(repairs: int, *, blocked: bool) -> None:
    summary = DriftSummary(counters_scanned=1_000, under=repairs)

    assert variables(summary, Budgets()) == ({"RECON_MAX_REPAIR_SHARE"} if blocked else set())


def test_keys_without_a_counter_are_part_of_the_whole_that_a_share_is_of() -> None:
    assert variables(DriftSummary(counters_scanned=900, missing=100), Budgets()) == set()
    assert variables(DriftSummary(counters_scanned=899, missing=100), Budgets()) == {"RECON_MAX_REPAIR_SHARE"}


@pytest.mark.parametrize(("orphans", "blocked"), [(199, False), (200, False), (201, True)])
def test_the_share_of_orphans_is_blocked_above_its_budget(orphans: int, *, blocked: bool) -> None:
    summary = DriftSummary(counters_scanned=10_000, orphan=orphans)

    assert variables(summary, Budgets()) == ({"RECON_MAX_ORPHAN_SHARE"} if blocked else set())


@pytest.mark.parametrize(("orphans", "blocked"), [(AT_FLOOR - 1, False), (AT_FLOOR, False), (AT_FLOOR + 1, True)])
def test_a_small_database_is_blocked_only_above_the_floor(orphans: int, *, blocked: bool) -> None:
    found = variables(DriftSummary(counters_scanned=AT_FLOOR + 1, orphan=orphans), Budgets())

    assert found == ({"RECON_MAX_REPAIR_SHARE", "RECON_MAX_ORPHAN_SHARE"} if blocked else set())


@pytest.mark.parametrize(("transitions", "blocked"), [(99, False), (100, False), (101, True)])
def test_over_quota_transitions_are_blocked_above_their_budget(transitions: int, *, blocked: bool) -> None:
    summary = DriftSummary(counters_scanned=10_000, under=transitions, over_quota_transitions=transitions)

    assert variables(summary, Budgets()) == ({"RECON_MAX_OVER_QUOTA_TRANSITIONS"} if blocked else set())


def test_unblocking_customers_needs_no_approval() -> None:
    summary = DriftSummary(counters_scanned=100_000, over=5_000, under_quota_transitions=5_000)

    assert variables(summary, Budgets()) == set()


def test_a_breach_names_what_was_found_what_is_allowed_and_the_variable() -> None:
    (breach,) = breaches(DriftSummary(counters_scanned=100_000, under=1_234), Budgets(max_repairs=1_000))

    assert breach.sentence == "1,234 counters would be repaired; RECON_MAX_REPAIRS allows 1,000"


def let_drift(billing: Billing, count: int, *, used: int = 10, counted: int = 3) -> None:
    for customer in customers(count):
        billing.record(customer, used)
        billing.set_counter(customer, counted)


def assert_blocked(billing: Billing, variable: str, **how: str) -> None:
    before = billing.counters()

    result = run_job(**how)

    assert not result.success
    if not how:
        check = result.check("drift_is_within_budgets")
        assert not check.passed
        assert check.blocking
        assert variable in (check.description or "")
        assert check.metadata["would_repair"].value, "a person must see what would have been done"
    assert billing.counters() == before
    assert billing.ledger() == []
    assert billing.value("select count(*) from recon.counter_drift where outcome is not null") == 0
    (record,) = billing.query("select * from recon.reconciliation_run where run_id = %s", result.run_id)
    assert record.outcome == "blocked"
    assert variable in record.error
    assert record.rows_repaired == 0


@pytest.mark.parametrize(
    ("variable", "value", "keys"),
    [
        ("RECON_MAX_REPAIRS", "3", 3),
        ("RECON_MAX_REPAIR_SHARE", "0.1", AT_FLOOR),
        ("RECON_MAX_ORPHAN_SHARE", "0.02", AT_FLOOR),
        ("RECON_MAX_OVER_QUOTA_TRANSITIONS", "2", 2),
    ],
)
def test_the_job_repairs_at_each_budget_and_is_blocked_one_above(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, keys: int
) -> None:
    monkeypatch.setenv(variable, value)
    let_drift(job_billing, keys + 1, used=60)
    if variable == "RECON_MAX_ORPHAN_SHARE":
        job_billing.query("delete from billing_usage_events")
        job_billing.record(
            "elsewhere",
            period=(
                job_billing.value("select timestamptz '2025-07-01 00:00Z'"),
                job_billing.value("select timestamptz '2025-08-01 00:00Z'"),
            ),
        )
    one_above = customers(keys + 1)[-1]

    assert_blocked(job_billing, variable)

    right = 0 if variable == "RECON_MAX_ORPHAN_SHARE" else 60
    job_billing.set_counter(one_above, right)
    assert run_job().success
    assert len(job_billing.ledger()) == keys


def test_materializing_only_the_repair_does_not_get_around_the_guard(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 3)

    assert_blocked(job_billing, "RECON_MAX_REPAIRS", only="repaired_counters")


def test_an_approved_repair_is_done_and_the_approval_is_recorded(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 3)
    shown = run_job()
    assert not shown.success

    result = run_job(approve_reason="a queue was replayed", approved_by="ada")

    assert result.success
    check = result.check("drift_is_within_budgets")
    assert check.description == "Approved by ada: a queue was replayed"
    assert set(job_billing.counters().values()) == {10}
    approval = "approved_by, approved_reason, approved_run_id, outcome"
    assert job_billing.query(f"select {approval} from recon.reconciliation_run where run_id = %s", result.run_id) == [
        ("ada", "a queue was replayed", shown.run_id, "clean")
    ]


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_approval_without_a_reason_is_none(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 3)

    assert not run_job(approve_reason=reason, approved_by="ada").success
    assert job_billing.ledger() == []


def test_an_approval_that_was_not_needed_is_not_recorded(job_billing: Billing) -> None:
    let_drift(job_billing, 3)

    assert run_job(approve_reason="just in case", approved_by="ada").success
    assert job_billing.value("select approved_reason from recon.reconciliation_run") is None


@pytest.fixture
def blocked(job_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Three drifted keys where two may be repaired."""
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 3)
    return job_billing


APPROVED = {"approve_reason": "a queue was replayed", "approved_by": "ada"}


def assert_blocked_again(billing: Billing, said: str, **config: str) -> str:
    result = run_job(**APPROVED, **config)
    assert not result.success
    assert said in (result.check("drift_is_within_budgets").description or "")
    assert billing.ledger() == []
    (record,) = billing.query("select * from recon.reconciliation_run where run_id = %s", result.run_id)
    assert (record.outcome, record.approved_reason) == ("blocked", None)
    return result.run_id


def test_what_nobody_was_shown_cannot_be_approved_and_is_shown_thereby(blocked: Billing) -> None:
    assert_blocked_again(blocked, "nobody can have seen what would be done now")

    assert run_job(**APPROVED).success


def test_drift_that_has_grown_beyond_what_was_shown_is_blocked_again_with_the_new_figures(blocked: Billing) -> None:
    shown = run_job()
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)

    assert_blocked_again(blocked, f"than run {shown.run_id} showed: 4 counters would be repaired")

    assert run_job(**APPROVED).success
    assert len(blocked.ledger()) == 4


def test_drift_that_is_no_larger_than_what_was_shown_is_repaired(blocked: Billing) -> None:
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)
    run_job()
    blocked.set_counter("one more", 10)

    assert run_job(**APPROVED).success


def test_what_one_budget_was_shown_for_is_not_approved_for_another(
    blocked: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job()
    monkeypatch.setenv("RECON_MAX_OVER_QUOTA_TRANSITIONS", "0")
    blocked.record(customers(1)[0], 100)
    blocked.set_counter(customers(1)[0], 3)

    assert_blocked_again(blocked, "1 customers would be pushed over their quota")


def test_a_run_over_other_months_or_customers_has_shown_something_else(blocked: Billing) -> None:
    run_job(last="2025-06")
    run_job(customers=[*customers(3), "and another"])

    assert_blocked_again(blocked, "No run was blocked over the same months and customers")


def test_what_was_repaired_since_it_was_shown_must_be_shown_again(blocked: Billing) -> None:
    run_job()
    assert run_job(**APPROVED).success
    blocked.query("update billing_usage_counters set usage_count = 4")

    result = run_job(**APPROVED)

    assert not result.success
    assert "nobody can have seen" in (result.check("drift_is_within_budgets").description or "")


def test_the_run_whose_figures_are_approved_can_be_named(blocked: Billing) -> None:
    shown = run_job()
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)
    larger = run_job()

    assert_blocked_again(blocked, "3 were shown", approve_run=shown.run_id[:13])
    assert_blocked_again(blocked, "Run nothing, which was approved, is no blocked run", approve_run="nothing")

    assert run_job(**APPROVED, approve_run=larger.run_id).success
