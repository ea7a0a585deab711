"""Keys that Stripe cannot be asked about: their events need not be in the log, or their period has no end."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.core.periods import BillingMonth
from recon_pipeline.lake.settings import read_lake_settings
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.parity.comparing import AFTER_FINAL, Application
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.seals import seal
from recon_pipeline_tests.support.assets import run_assets

NOON = datetime(2025, 5, 20, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def test_a_key_of_an_archived_month_keeps_what_was_found_when_its_events_leave_the_log(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", app.billing.url)
    app.use("equal", 5, NOON)
    app.use("lost", 7, NOON, sends=0)
    assert run_assets(last="2025-05").record.outcome == "clean"
    app.compare(AFTER_FINAL)
    assert app.found() == [("lost", "finalized", -7)]
    seal(app.billing)
    assert app.compare(AFTER_FINAL + DAY).compared == 1, "a sealed month is compared as long as the log has it"
    archive(app.billing, tmp_path / "archive")
    app.billing.query("delete from billing_usage_events")
    assert app.compare(AFTER_FINAL + 2 * DAY).compared == 0
    assert app.found() == [("lost", "finalized", -7)]


def test_a_month_that_was_counted_in_the_lake_has_no_key_that_is_compared(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "DATABASE_URL": app.billing.url,
        "RECON_LAKE": str(tmp_path / "lake"),
        "RECON_LAKE_COMPLETE_UNTIL": "2025-06",
    }.items():
        monkeypatch.setenv(name, value)
    write(tmp_path / "lake", [Event("1", 7, "a", event_timestamp=NOON)])
    app.billing.add_counter("a", 7)
    app.stripe.now = NOON
    app.stripe.send("a", 7, NOON, "1")
    database = ReconciledDatabase()
    months = [BillingMonth(2025, 5)]
    lake_counting.count_months(database.open(), database.settings(), read_lake_settings(), months, counted_by="ada")
    assert app.compare(AFTER_FINAL).compared == 0
    assert (app.found(), app.coverage().keys) == ([], 0)


@pytest.mark.parametrize("end", ["infinity", "57869-03-01"])
def test_a_period_without_an_end_stops_none_of_the_others_and_counts_as_never_compared(
    app: Application, end: str
) -> None:
    for customer in ("endless", "lost"):
        app.use(customer, 5, NOON, sends=0)
    for table in ("billing_usage_counters", "billing_usage_events"):
        app.billing.query(f"update {table} set period_end = %s where gateway_customer_id = 'endless'", end)
    for hours in (1, 2):
        assert app.compare(NOON + hours * HOUR).is_done
    assert app.found() == [("lost", "missing", -5)]
    assert (app.coverage().keys, app.coverage().compared) == (2, 1)
