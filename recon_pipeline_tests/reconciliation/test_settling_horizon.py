"""With settle_seconds the aggregates stay behind what may still be on its way to a counter."""

import pytest

from recon_pipeline.store.counters.compare import Coverage
from recon_pipeline.store.sums.increments import Advance
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.increments import (
    advance,
    aggregated,
    compared,
    pass_an_hour,
    settle,
    tick,
    wrong_totals,
)
from recon_pipeline_tests.reconciliation.product import Run, new_run
from recon_pipeline_tests.support.assets import run_assets

HOUR_SECONDS = 3_600
SETTLE_SECONDS = HOUR_SECONDS // 2


def settling(billing: Billing) -> Run:
    return new_run(billing.url, settle_seconds=SETTLE_SECONDS)


def test_with_settle_seconds_nothing_young_is_absorbed(incremental_billing: Billing) -> None:
    billing = incremental_billing
    with billing.session() as late:
        late.add_event("late", 10)
        billing.add_event("old", 10)
        settling(billing).compare()
        assert aggregated(billing) == {}, "no horizon is old enough"
        assert advance(settling(billing)).waits_because is not None
        late.connection.commit()
    pass_an_hour(billing)
    billing.add_event("young", 10)

    assert settling(billing).aggregate() == Advance(built_months=("2025-05",))
    stored = aggregated(billing)
    settling(billing).compare()
    pass_an_hour(billing)
    settling(billing).compare()

    assert stored == {}, "the run an hour ago saw the late transaction, which is older, still open"
    assert aggregated(billing) == {"late": 10, "old": 10, "young": 10}
    assert not wrong_totals(billing)


def test_a_horizon_that_this_server_has_not_come_to_settles_nothing(incremental_billing: Billing) -> None:
    """It was taken on the server that this database was restored from."""
    billing = incremental_billing
    settling(billing).compare()
    billing.query(
        "update recon.reconciliation_run set horizon = (pg_current_xact_id()::text::bigint + 1000)::text::xid8"
    )
    pass_an_hour(billing)
    billing.add_event("a", 5)

    assert settling(billing).compare().summary.drift_count == 0


def test_with_settle_seconds_an_event_whose_increment_is_still_to_come_is_in_sync(incremental_billing: Billing) -> None:
    billing = incremental_billing
    billing.record("a", 10)
    settling(billing).compare()
    pass_an_hour(billing)
    assert settling(billing).aggregate() == Advance(built_months=("2025-05",))
    billing.add_event("a", 5)
    assert settling(billing).compare().summary.drift_count == 0

    pass_an_hour(billing)

    assert settling(billing).compare().summary.drift_count == 1
    assert compared(billing.url, settle_seconds=SETTLE_SECONDS)[0] is Coverage.EVERY_KEY, "no run has verified it"


def test_a_tick_compares_what_settled_since_it_was_verified_and_is_still_not_counted(
    incremental_billing: Billing,
) -> None:
    billing = incremental_billing
    for customer in "ab":
        billing.record(customer, 10)
    settle(billing)
    tick(billing.url, settle_seconds=SETTLE_SECONDS)
    billing.add_event("a", 5)
    billing.record("b", 5)
    for _ in range(2):
        tick(billing.url, settle_seconds=SETTLE_SECONDS)
        assert compared(billing.url, settle_seconds=SETTLE_SECONDS) == (Coverage.CHANGED_KEYS, set())

    settle(billing)

    assert advance(settling(billing)).absorbed_count == 2
    looked, found = compared(billing.url, settle_seconds=SETTLE_SECONDS)
    assert looked is Coverage.CHANGED_KEYS
    assert found == {("a", "2025-05-01 00:00:00+00", "under", "10", "15")}
    tick(billing.url, settle_seconds=SETTLE_SECONDS)
    assert billing.counters() == {"a": 15, "b": 15}


def test_runs_more_often_than_settle_seconds_settle_all_the_same(
    incremental_billing: Billing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run that found nothing settled forgot when the log was first seen, and with it every horizon before."""
    billing = incremental_billing
    monkeypatch.setenv("DATABASE_URL", billing.url)
    monkeypatch.setenv("RECON_SETTLE_SECONDS", str(2 * HOUR_SECONDS))
    billing.add_event("a", 10)
    for _ in range(3):
        assert run_assets().success
        assert billing.counters() == {}
        pass_an_hour(billing)

    assert run_assets().success
    assert (aggregated(billing), billing.counters()) == ({"a": 10}, {"a": 10})
    assert run_assets().success
    assert billing.ledger() == [("a", "missing", None, 10)]
