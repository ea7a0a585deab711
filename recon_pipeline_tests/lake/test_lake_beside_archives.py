"""An archived month and one that was counted in the lake, side by side: each is taken for what it is."""

from pathlib import Path

import pytest

from recon_pipeline.assets import lake_counting
from recon_pipeline.assets.reconciled_database import ReconciledDatabase
from recon_pipeline.faces import seals as face
from recon_pipeline.lake.settings import read_lake_settings
from recon_pipeline.settings import read_settings
from recon_pipeline_tests.lake.lakes import Event, write
from recon_pipeline_tests.reconciliation.archives import archive
from recon_pipeline_tests.reconciliation.billing import JUNE, Billing
from recon_pipeline_tests.reconciliation.seals import corrections_of, seal
from recon_pipeline_tests.support.assets import run_assets


def test_counters_follow_both_and_no_count_in_a_lake_is_taken_for_a_seal(
    job_billing: Billing, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECON_LAKE_COMPLETE_UNTIL", "2025-07")
    job_billing.record("a", 10)
    assert run_assets(last="2025-06").record.outcome == "clean"
    seal(job_billing)
    archive(job_billing, tmp_path / "archive")
    job_billing.query("delete from billing_usage_events")
    write(lake, [Event("req-1", 7, "a", period_start=JUNE[0], period_end=JUNE[1])])
    database = ReconciledDatabase()
    counted = lake_counting.count_months(
        database.open(), database.settings(), read_lake_settings(), [], counted_by="ada"
    )
    assert [(one.month.key, one.reason) for one in counted if one.reason] == [("2025-05", "it is sealed")]

    job_billing.set_counter("a", 99)
    job_billing.add_counter("a", 99, period=JUNE)
    assert run_assets(last="2025-06").record.outcome == "clean"

    assert (job_billing.counter("a"), job_billing.counter("a", period=JUNE)) == (10, 7)
    assert corrections_of(job_billing) == {}
    verified = face.verify(read_settings())
    assert (verified.misfit, verified.checked, verified.in_force, verified.archived) == (None, 1, 0, 1)
    (june,) = seal(job_billing, "2025-06")
    assert (june.record.seal.usage_count, june.record.seal.lake_source is None) == (7, False)
    verified = face.verify(read_settings())
    assert (verified.misfit, verified.checked, verified.in_lake, verified.archived) == (None, 2, 1, 1)
