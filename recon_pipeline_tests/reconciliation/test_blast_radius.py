"""Blast radius: a repair beyond a budget is blocked before its first write, until a person approves it and says why."""

from collections.abc import Sequence

import pytest

from recon_pipeline.core.guards import SHARE_FLOOR_KEYS, Budgets, DriftSummary, Today, breaches
from recon_pipeline.store.counters import repair, undo
from recon_pipeline.store.counters.chunks import Repairer
from recon_pipeline.store.counters.undo_request import UndoRequest
from recon_pipeline.store.postgres.database import BillingDatabase
from recon_pipeline_tests.reconciliation.billing import GATEWAY, JUNE, MAY, USAGE, Billing, customers
from recon_pipeline_tests.reconciliation.product import run_job
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

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

    result = run_job(**how) if how else run_assets()

    assert not result.success
    if isinstance(result, AssetsRun):
        check = result.check("drift_is_within_budgets")
        assert not check.passed
        assert result.is_stopped
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
    assert run_assets().success
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
    shown = run_assets()
    assert not shown.success

    result = run_assets(approve_reason="a queue was replayed", approved_by="ada")

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

    assert not run_assets(approve_reason=reason, approved_by="ada").success
    assert job_billing.ledger() == []


def test_an_approval_that_was_not_needed_is_not_recorded(job_billing: Billing) -> None:
    let_drift(job_billing, 3)

    assert run_assets(approve_reason="just in case", approved_by="ada").success
    assert job_billing.value("select approved_reason from recon.reconciliation_run") is None


@pytest.fixture
def blocked(job_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Three drifted keys where two may be repaired."""
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 3)
    return job_billing


APPROVED = {"approve_reason": "a queue was replayed", "approved_by": "ada"}


def assert_blocked_again(billing: Billing, said: str, **config: str) -> str:
    result = run_assets(**APPROVED, **config)
    assert not result.success
    assert said in (result.check("drift_is_within_budgets").description or "")
    assert billing.ledger() == []
    (record,) = billing.query("select * from recon.reconciliation_run where run_id = %s", result.run_id)
    assert (record.outcome, record.approved_reason) == ("blocked", None)
    return result.run_id


def test_figures_that_were_not_shown_cannot_be_approved_and_are_then_shown(blocked: Billing) -> None:
    assert_blocked_again(blocked, "nobody can have seen what would be done now")

    assert run_assets(**APPROVED).success


def test_drift_that_has_grown_beyond_what_was_shown_is_blocked_again_with_the_new_figures(blocked: Billing) -> None:
    shown = run_assets()
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)

    assert_blocked_again(blocked, f"than run {shown.run_id} showed: 4 counters would be repaired")

    assert run_assets(**APPROVED).success
    assert len(blocked.ledger()) == 4


def test_drift_that_is_no_larger_than_what_was_shown_is_repaired(blocked: Billing) -> None:
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)
    run_assets()
    blocked.set_counter("one more", 10)

    assert run_assets(**APPROVED).success


def test_what_one_budget_was_shown_for_is_not_approved_for_another(
    blocked: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_assets()
    monkeypatch.setenv("RECON_MAX_OVER_QUOTA_TRANSITIONS", "0")
    blocked.record(customers(1)[0], 100)
    blocked.set_counter(customers(1)[0], 3)

    assert_blocked_again(blocked, "1 customers would be pushed over their quota")


def test_a_run_over_other_months_or_customers_has_shown_something_else(blocked: Billing) -> None:
    run_assets(last="2025-06")
    run_assets(customers=[*customers(3), "and another"])

    assert_blocked_again(blocked, "No run was blocked over the same months and customers")


def test_what_was_repaired_since_it_was_shown_must_be_shown_again(blocked: Billing) -> None:
    run_assets()
    assert run_assets(**APPROVED).success
    blocked.query("update billing_usage_counters set usage_count = 4")

    result = run_assets(**APPROVED)

    assert not result.success
    assert "nobody can have seen" in (result.check("drift_is_within_budgets").description or "")


def test_the_run_whose_figures_are_approved_can_be_named(blocked: Billing) -> None:
    shown = run_assets()
    blocked.record("one more", 10)
    blocked.set_counter("one more", 3)
    larger = run_assets()

    assert_blocked_again(blocked, "3 were shown", approve_run=shown.run_id[:13])
    assert_blocked_again(blocked, "Run nothing, which was approved, is no blocked run", approve_run="nothing")

    assert run_assets(**APPROVED, approve_run=larger.run_id).success


def break_off_after_one_key(patch: pytest.MonkeyPatch) -> None:
    """Chunks of one key, and the process is gone after the first: nobody closes the record of the run."""
    patch.setattr(repair, "CHUNK_KEYS", 4)
    free_keys = Repairer.free_keys

    def killed(self: Repairer, ordinals: range) -> list[int]:
        if ordinals[0] > 1:
            raise RuntimeError("killed")
        return free_keys(self, ordinals)

    patch.setattr(Repairer, "free_keys", killed)


@pytest.mark.parametrize("is_closed", [False, True])
def test_an_approval_is_used_up_by_a_run_that_repaired_half_and_died(
    blocked: Billing, monkeypatch: pytest.MonkeyPatch, *, is_closed: bool
) -> None:
    shown = run_assets()
    with monkeypatch.context() as patch:
        break_off_after_one_key(patch)
        died = run_assets(**APPROVED)
    assert not died.success
    assert len(blocked.ledger()) == 1
    if is_closed:  # as Dagster's sensor does some time later
        blocked.query("update recon.reconciliation_run set outcome = 'failed' where run_id = %s", died.run_id)
    blocked.query("update billing_usage_counters set usage_count = 4")

    for named in ({}, {"approve_run": shown.run_id}):
        result = run_assets(**APPROVED, **named)

        assert not result.success
        assert "an approval is used up by the first run that repairs under it" in (
            result.check("drift_is_within_budgets").description or ""
        )
        assert len(blocked.ledger()) == 1
        blocked.query("delete from recon.reconciliation_run where run_id = %s", result.run_id)


def test_an_approval_is_not_used_up_by_a_run_that_repaired_nothing(
    blocked: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_assets()
    with monkeypatch.context() as patch:
        patch.setattr(repair, "repair", lambda *_, **__: 1 / 0)
        assert not run_assets(**APPROVED).success

    assert run_assets(**APPROVED).success
    assert len(blocked.ledger()) == 3


def lose(billing: Billing, customers: Sequence[str]) -> None:
    billing.query(
        "update billing_usage_counters set usage_count = 3 where gateway_customer_id = any(%s)", list(customers)
    )


@pytest.fixture
def many(job_billing: Billing) -> Billing:
    """A thousand counters that are right; the floor of shares is far below the share."""
    job_billing.query(
        "select record_billing_usage_event(%s, %s || lpad(n::text, 4, '0'), %s, 'r' || n, %s, %s, 10) "
        "from generate_series(0, 999) as n",
        GATEWAY, "customer_", USAGE, *MAY,
    )  # fmt: skip
    return job_billing


def test_a_loss_below_the_budget_again_and_again_is_blocked_once_the_share_of_the_day_is_used_up(many: Billing) -> None:
    """9 % of the counters every five minutes: each run by itself is small, and ten of them follow it to the end."""
    ended: list[bool] = []
    for turn in range(10):
        lose(many, customers(1_000)[turn * 90 : turn * 90 + 90])
        ended.append(run_assets().success)

    assert ended == [True] + [False] * 9
    assert len(many.ledger()) == 90
    blocked = many.value("select error from recon.reconciliation_run order by started_at desc limit 1")
    assert "810 counters would be repaired" in blocked
    second = many.value("select error from recon.reconciliation_run order by started_at offset 1 limit 1")
    assert (
        "90 counters would be repaired (share 0.1 of 1,000 keys, at least 50), "
        "and 90 were by runs of the last 24 hours; RECON_MAX_REPAIR_SHARE allows 100" in second
    )


def test_the_same_counters_again_and_again_use_up_the_day_too(many: Billing) -> None:
    lose(many, customers(60))
    assert run_assets().success
    lose(many, customers(60))

    assert not run_assets().success


def test_what_was_repaired_of_one_key_in_many_runs_counts_once(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "2")
    let_drift(job_billing, 1)
    for _ in range(5):
        assert run_assets().success
        job_billing.set_counter(customers(1)[0], 3)

    assert len(job_billing.ledger()) == 5


def test_the_absolute_budgets_of_a_day_are_over_all_months_and_shares_over_those_of_the_run(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_MAX_REPAIRS", "60")
    let_drift(job_billing, AT_FLOOR - 5)
    assert run_assets().success
    for customer in customers(10):
        job_billing.add_event(customer, 10, period=JUNE)
    assert run_assets(first="2025-06", last="2025-06").success, "10 of 10 keys, below the floor of the share"
    for customer in customers(16)[10:]:
        job_billing.add_event(customer, 10, period=JUNE)

    reported = run_assets(first="2025-06", last="2025-06").check("drift_is_within_budgets").description or ""

    assert (
        "6 counters would be repaired, and 55 were by runs of the last 24 hours; RECON_MAX_REPAIRS allows 60"
        in reported
    )
    assert "SHARE" not in reported


@pytest.mark.parametrize(("variable", "value"), [("RECON_MAX_OVER_QUOTA_TRANSITIONS", "2")])
def test_customers_pushed_over_their_quota_are_counted_over_the_day(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    let_drift(job_billing, 2, used=60)
    assert run_assets().success
    job_billing.record("one more", 60)
    job_billing.set_counter("one more", 3)

    reported = run_assets().check("drift_is_within_budgets").description or ""

    assert (
        f"1 customers would be pushed over their quota, and 2 were by runs of the last 24 hours; {variable}" in reported
    )


def test_orphans_are_counted_over_the_day(many: Billing) -> None:
    for turn, succeeds in enumerate((True, False)):
        for customer in customers(40, prefix=f"orphan_{turn}"):
            many.add_counter(customer, 5)
        assert run_assets().success is succeeds
    reported = many.value("select error from recon.reconciliation_run order by started_at desc limit 1")

    assert "40 orphaned counters would be zeroed" in reported
    assert "and 40 were by runs of the last 24 hours; RECON_MAX_ORPHAN_SHARE allows 50" in reported


def test_a_run_with_nothing_to_repair_is_never_blocked_by_what_others_did(
    job_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_drift(job_billing, 3)
    assert run_assets().success
    monkeypatch.setenv("RECON_MAX_REPAIRS", "1")

    assert run_assets().success


def test_what_was_approved_taken_back_or_done_before_yesterday_leaves_the_budget_of_the_day_alone(
    blocked: Billing,
) -> None:
    run_assets()
    assert run_assets(**APPROVED).success, "three repairs, with approval"
    lose(blocked, customers(2))
    taken_back = run_assets()
    assert taken_back.success, "two, the whole budget"
    lose(blocked, customers(2))
    assert not run_assets().success
    blocked.query("update billing_usage_counters set usage_count = 10")
    blocked.query("insert into recon.control (action, reason, acted_by) values ('pause', 'to take back', 'ada')")
    with BillingDatabase(blocked.url).connection() as connection:
        undo.undo_repairs(connection, UndoRequest("undoing", taken_back.run_id, (), "wrong", "ada"))
    blocked.query("insert into recon.control (action, acted_by) values ('resume', 'ada')")

    assert run_assets().success, "what was taken back does not count"
    lose(blocked, customers(2))
    assert not run_assets().success
    # The ledger can only be added to, so a day is made to pass where its rows are made.
    blocked.query("alter table recon.counter_repair disable trigger user")
    blocked.query("update recon.counter_repair set repaired_at = repaired_at - interval '24 hours'")

    assert run_assets().success


def test_an_approval_covers_what_was_shown_whatever_was_repaired_that_day(many: Billing) -> None:
    lose(many, customers(90))
    assert run_assets().success
    lose(many, customers(60))
    assert not run_assets().success

    assert run_assets(**APPROVED).success
    assert set(many.counters().values()) == {10}


def test_earlier_repairs_are_reported_apart_from_what_a_run_would_do() -> None:
    today = Today(repairs=9_000, repairs_of_extent=9_000)

    (breach,) = breaches(DriftSummary(counters_scanned=200_000, under=1_234), Budgets(), today)

    assert (breach.found, breach.earlier, breach.allowed) == (1_234, 9_000, 10_000)
    assert breach.sentence == (
        "1,234 counters would be repaired, and 9,000 were by runs of the last 24 hours; RECON_MAX_REPAIRS allows 10,000"
    )


@pytest.mark.parametrize(("earlier", "blocked"), [(0, False), (3, False), (4, True)])
def test_the_budget_of_a_day_is_blocked_above_its_limit(earlier: int, *, blocked: bool) -> None:
    found = breaches(DriftSummary(counters_scanned=10_000, under=4), Budgets(max_repairs=7), Today(repairs=earlier))

    assert bool(found) is blocked
