"""What a tick cannot see, the nightly audit finds: it reads the whole log and fixes the aggregates and the counters."""

import pytest

from recon_pipeline.store.records import runs
from recon_pipeline_tests.reconciliation.billing import GATEWAY, USAGE, Billing
from recon_pipeline_tests.reconciliation.increments import (
    advance,
    aggregated,
    event_sums,
    is_exact,
    log_sums,
    wrong_totals,
)
from recon_pipeline_tests.reconciliation.product import mismatch_count, new_run
from recon_pipeline_tests.support.assets import AssetsRun, run_assets

CHECK = "aggregates_match_events"


@pytest.fixture
def audited(incremental_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> Billing:
    """Customers `a`, `b` and `c` have used 10 each, which a tick has absorbed; the environment names the database."""
    monkeypatch.setenv("DATABASE_URL", incremental_billing.url)
    monkeypatch.setenv("RECON_MAX_EVENTS_LEFT", "1000000")
    for customer in "abc":
        for _ in range(2):
            incremental_billing.record(customer, 5)
    assert run_assets().success
    return incremental_billing


def behind_our_back(billing: Billing, statement: str) -> None:
    """Change the log while triggers are off, as a restore or a replica does."""
    with billing.session() as session:
        session.query("set session_replication_role = replica")
        session.query(statement)
        session.connection.commit()


def evaluated(job: AssetsRun) -> set[str]:
    return set(job.checks)


def differing(billing: Billing, job: AssetsRun) -> int | None:
    with new_run(billing.url).database.transaction() as connection:
        record = runs.read(connection, job.run_id)
    assert record is not None
    return record.aggregates_differing


def test_what_a_tick_does_not_see_the_audit_finds_names_and_fixes(audited: Billing) -> None:
    audited.add_event("a", 100, ingest_xid="5")
    audited.add_event("new", 7, ingest_xid="5")
    behind_our_back(audited, "delete from billing_usage_events where gateway_customer_id = 'b'")
    behind_our_back(
        audited,
        "delete from billing_usage_events where id = "
        "(select id from billing_usage_events where gateway_customer_id = 'c' limit 1)",
    )

    tick = run_assets()
    assert tick.success
    assert CHECK not in evaluated(tick)
    assert differing(audited, tick) is None
    assert audited.counters() == dict.fromkeys("abc", 10)

    audit = run_assets(full=True)
    check = audit.check(CHECK)
    assert (check.passed, check.severity.value) == (False, "ERROR")
    assert check.metadata["count"].value == differing(audited, audit) == 4
    found = {row["gateway_customer_id"]: (row["aggregated"], row["in_log"]) for row in sample(audit)}
    assert found == {"a": ("10", "110"), "b": ("10", "0"), "c": ("10", "5"), "new": ("0", "7")}
    assert is_exact(audited, absorbed=True)
    assert audited.counters() == {"a": 110, "b": 0, "c": 5, "new": 7}
    assert audit.check("counters_match_event_sums").passed

    again = run_assets(full=True)
    assert again.check(CHECK).passed
    assert (differing(audited, again), again.check(CHECK).metadata["count"].value) == (0, 0)
    assert run_assets().success
    assert mismatch_count(audited.url) == 0


def sample(job: AssetsRun) -> list[dict[str, str]]:
    return [dict(record.data) for record in job.check(CHECK).metadata["sample"].value.records]  # type: ignore[union-attr]


def test_an_aggregate_changed_by_hand_is_fixed_and_no_counter_is_changed_by_it(audited: Billing) -> None:
    audited.query("update recon.usage_aggregate set usage_count = 99 where gateway_customer_id = 'a'")
    audited.query("delete from recon.usage_aggregate where gateway_customer_id = 'b'")
    audited.query(
        "insert into recon.usage_aggregate select gateway_name, usage_type, 'nobody', period_start, period_end, 1, 1 "
        "from recon.usage_aggregate where gateway_customer_id = 'c'"
    )

    audit = run_assets(full=True)

    assert audit.check(CHECK).metadata["count"].value == 3
    assert {row["gateway_customer_id"] for row in sample(audit)} == {"a", "b", "nobody"}
    assert audited.counters() == dict.fromkeys("abc", 10)
    assert audited.ledger() == []
    assert event_sums(new_run(audited.url)) == log_sums(audited)


def test_deletions_that_were_noted_and_events_still_to_be_absorbed_are_no_difference(audited: Billing) -> None:
    with audited.session() as late:
        late.add_event("late", 5)
        audited.add_event("a", 5)
        audited.query("delete from billing_usage_events where gateway_customer_id = 'b'")
        audit = run_assets(full=True)
        late.connection.commit()

    assert audit.check(CHECK).passed
    assert audited.counters() == {"a": 15, "b": 0, "c": 10}
    assert run_assets(full=True).check(CHECK).passed
    assert audited.counters() == {"a": 15, "b": 0, "c": 10, "late": 5}
    assert wrong_totals(audited) == []


def test_an_audit_over_some_customers_compares_theirs_alone(audited: Billing) -> None:
    for customer in "ab":
        audited.add_event(customer, 100, ingest_xid="5")

    audit = run_assets(full=True, customers=["b"])

    assert {row["gateway_customer_id"] for row in sample(audit)} == {"b"}
    assert audited.counters() == {"a": 10, "b": 110, "c": 10}
    assert aggregated(audited) == {"a": 10, "b": 110, "c": 10}
    assert {row["gateway_customer_id"] for row in sample(run_assets(full=True))} == {"a"}


def test_the_first_run_of_all_may_be_an_audit(incremental_billing: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", incremental_billing.url)
    incremental_billing.add_event("a", 5)

    audit = run_assets(full=True)

    assert audit.check(CHECK).passed
    assert is_exact(incremental_billing, absorbed=True)
    assert incremental_billing.counters() == {"a": 5}


def test_a_timestamp_that_is_corrected_is_no_difference(audited: Billing) -> None:
    audited.query("update billing_usage_events set event_timestamp = period_start where gateway_customer_id = 'a'")
    advance(new_run(audited.url))

    assert run_assets(full=True).check(CHECK).passed


def test_an_audit_of_nothing_says_so(audited: Billing, monkeypatch: pytest.MonkeyPatch) -> None:
    audited.query("truncate recon.usage_aggregate, recon.usage_month; update recon.event_log set horizon = null")
    monkeypatch.setenv("RECON_SETTLE_SECONDS", "3600")

    check = run_assets(full=True).check(CHECK)

    assert check.passed
    assert f"Of {GATEWAY}:{USAGE} there are no stored sums" in (check.description or "")
