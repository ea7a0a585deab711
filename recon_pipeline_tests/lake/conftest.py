"""A lake beside a billing database."""

from pathlib import Path

import pytest

from recon_pipeline_tests.reconciliation.conftest import billing, job_billing, make_billing

__all__ = ["billing", "job_billing", "lake", "make_billing"]


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty lake, complete until June."""
    folder = tmp_path / "lake"
    folder.mkdir()
    monkeypatch.setenv("RECON_LAKE", str(folder))
    monkeypatch.setenv("RECON_LAKE_COMPLETE_UNTIL", "2025-06")
    return folder
