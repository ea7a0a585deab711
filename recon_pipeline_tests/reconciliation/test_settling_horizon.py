"""With settle_seconds the aggregates stay behind what may still be on its way to a counter."""

from collections.abc import Callable

import pytest

from recon_pipeline.store.aggregates import Advance
from recon_pipeline.store.basis import Look
from recon_pipeline_tests.reconciliation.billing import Billing
from recon_pipeline_tests.reconciliation.increments import advance, aggregated, compared, wrong_totals
from recon_pipeline_tests.reconciliation.product import Run, new_run

HOUR_SECONDS = 3_600


@pytest.fixture
def pass_an_hour(incremental_billing: Billing) -> Callable[[], None]:
    """Makes everything that runs have noted so far an hour older."""

    def pass_an_hour() -> None:
        for table, column in (("reconciliation_run", "started_at"), ("event_log", "first_seen_at")):
            incremental_billing.query(f"update recon.{table} set {column} = {column} - interval '1 hour'")

    return pass_an_hour


def settling(billing: Billing) -> Run:
    return new_run(billing.url, settle_seconds=HOUR_SECONDS // 2)


def test_with_settle_seconds_nothing_young_is_absorbed(
    incremental_billing: Billing, pass_an_hour: Callable[[], None]
) -> None:
    billing = incremental_billing
    with billing.session() as late:
        late.add_event("late", 10)
        billing.add_event("old", 10)
        settling(billing).compare()
        assert aggregated(billing) == {}, "no horizon is old enough"
        assert advance(settling(billing)).waits_because is not None
        late.connection.commit()
    pass_an_hour()
    billing.add_event("young", 10)

    assert settling(billing).aggregate() == Advance(built_months=("2025-05",))
    stored = aggregated(billing)
    settling(billing).compare()
    pass_an_hour()
    settling(billing).compare()

    assert stored == {}, "the run an hour ago saw the late transaction, which is older, still open"
    assert aggregated(billing) == {"late": 10, "old": 10, "young": 10}
    assert not wrong_totals(billing)


def test_with_settle_seconds_an_event_whose_increment_is_still_to_come_is_in_sync(
    incremental_billing: Billing, pass_an_hour: Callable[[], None]
) -> None:
    billing = incremental_billing
    billing.record("a", 10)
    settling(billing).compare()
    pass_an_hour()
    assert settling(billing).aggregate() == Advance(built_months=("2025-05",))
    billing.add_event("a", 5)
    assert settling(billing).compare().summary.drift_count == 0

    pass_an_hour()
    billing.query("update billing_usage_events set created_at = created_at - interval '1 hour'")

    assert settling(billing).compare().summary.drift_count == 1
    assert compared(billing.url, settle_seconds=HOUR_SECONDS // 2)[0] is Look.EVERY_KEY
